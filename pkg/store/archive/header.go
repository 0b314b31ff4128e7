package archive

import (
	"bytes"
	"fmt"
	"strings"
)

// An archive is blocks of 512 bytes: for each file a header and its content, filled up with zeros; at the end two blocks of zeros.
const (
	blockSize   = 512
	nameField   = 100
	prefixField = 155
	maxSize     = 1<<33 - 1 // eleven octal digits
	maxPadding  = 20 * blockSize
)

const ustar = "pack again with `tar --format=ustar`"

// Fields of a header, as offsets.
const (
	atMode     = 100
	atUID      = 108
	atGID      = 116
	atSize     = 124
	atTime     = 136
	atChecksum = 148
	atType     = 156
	atLink     = 157
	atMagic    = 257
	atUser     = 265
	atMajor    = 329
	atMinor    = 337
	atPrefix   = 345
	atRest     = 500 // unused by ustar; other formats hide fields here
)

const magic = "ustar\x0000" // with the version

// entry is what a header says.
type entry struct {
	name string
	size int64
	dir  bool
}

// header returns the header of a file: what is not its name or size is the same for all.
func header(name string, size int64) (block [blockSize]byte, err error) {
	prefix, rest := "", name
	if len(name) > nameField {
		at := strings.IndexByte(name[len(name)-nameField-1:], '/')
		if at < 0 {
			return block, &Error{name, fmt.Sprintf("has a last part of more than %d bytes in its name", nameField), rename}
		}
		at += len(name) - nameField - 1
		prefix, rest = name[:at], name[at+1:]
	}
	if len(prefix) > prefixField {
		return block, &Error{name, fmt.Sprintf("has a name of %d bytes, which can't be parted in %d and %d", len(name), prefixField, nameField), rename}
	}
	if size < 0 || size > maxSize {
		return block, &Error{name, fmt.Sprintf("has %d bytes, at most %d are possible", size, int64(maxSize)), "pack it in parts"}
	}
	copy(block[:], rest)
	copy(block[atMode:], "0000644\x00")
	copy(block[atUID:], "0000000\x00")
	copy(block[atGID:], "0000000\x00")
	copy(block[atSize:], fmt.Sprintf("%011o\x00", size))
	copy(block[atTime:], "00000000000\x00")
	block[atType] = '0'
	copy(block[atMagic:], magic)
	copy(block[atMajor:], "0000000\x00")
	copy(block[atMinor:], "0000000\x00")
	copy(block[atPrefix:], prefix)
	copy(block[atChecksum:], fmt.Sprintf("%06o\x00 ", checksum(&block)))
	return block, nil
}

// checksum is the sum of a header's bytes, with spaces for the checksum itself.
func checksum(block *[blockSize]byte) (sum int64) {
	for i, b := range block {
		if i >= atChecksum && i < atType {
			b = ' '
		}
		sum += int64(b)
	}
	return sum
}

// parse reads a header. Time, mode and owner need only be numbers, so that nobody else stumbles over them: nothing that is unpacked gets them.
func parse(block *[blockSize]byte) (entry, error) {
	var e entry
	if string(block[atMagic:atMagic+len(magic)]) != magic {
		if bytes.HasPrefix(block[atMagic:], []byte("ustar ")) {
			return e, &Error{"", "has the format of GNU tar", ustar}
		}
		return e, &Error{"", "is no tar archive, or is damaged: a header of the format ustar was expected", ustar}
	}
	sum, ok := octal(block[atChecksum:atType])
	if !ok || sum != checksum(block) {
		return e, &Error{"", "is damaged: a header's checksum is wrong", "get it again"}
	}
	kind := block[atType]
	name, nameOK := text(block[:nameField])
	prefix, prefixOK := text(block[atPrefix:atRest])
	shown := strings.ToValidUTF8(name, "?")
	if problem, bad := refused[kind]; bad {
		return e, &Error{shown, problem, "leave it out, and " + ustar}
	}
	if kind != '0' && kind != '5' {
		return e, &Error{shown, fmt.Sprintf("is of the unknown type %q", kind), "leave it out, and " + ustar}
	}
	if !nameOK || !prefixOK {
		return e, &Error{shown, "has more in its name after a NUL", "get the archive from somebody else"}
	}
	if !zero(block[atLink:atMagic]) || !zero(block[atRest:]) {
		return e, &Error{shown, "has a header with more in it than a file needs", ustar}
	}
	if e.size, ok = octal(block[atSize:atTime]); !ok {
		return e, &Error{shown, "has a size that is no octal number", ustar}
	}
	for _, field := range [][]byte{block[atMode:atUID], block[atUID:atGID], block[atGID:atSize], block[atTime:atChecksum], block[atMajor:atMinor], block[atMinor:atPrefix]} {
		if _, ok := octal(field); !ok && !zero(field) {
			return e, &Error{shown, "has a time, mode or owner that is no octal number", ustar}
		}
	}
	e.dir, e.name = kind == '5', name
	if prefix != "" {
		e.name = prefix + "/" + name
	}
	if e.dir {
		e.name = strings.TrimSuffix(e.name, "/") // the customary spelling
		if e.size != 0 {
			return e, &Error{shown, "is a directory that has content", "get the archive from somebody else"}
		}
	}
	return e, nil
}

// refused are types that other programs write, with what they are.
var refused = map[byte]string{
	0:   "has a header older than the format ustar",
	'1': "is a hard link",
	'2': "is a symbolic link",
	'3': "is a character device",
	'4': "is a block device",
	'6': "is a fifo",
	'7': "is a contiguous file",
	'x': "has an extended header (PAX)",
	'g': "is a header for all that follow (PAX)",
	'X': "has an extended header (Solaris)",
	'L': "has a long name (GNU)",
	'K': "has a long link (GNU)",
	'S': "is a sparse file (GNU)",
	'D': "is a directory's listing (GNU)",
	'M': "goes on from another volume (GNU)",
	'N': "is a list of long names (GNU)",
	'V': "is a volume's label (GNU)",
}

// text reads a field of text: all after the first NUL must be NULs too.
func text(field []byte) (string, bool) {
	at := bytes.IndexByte(field, 0)
	if at < 0 {
		return string(field), true
	}
	return string(field[:at]), zero(field[at:])
}

// octal reads a field of digits that are followed by NULs or spaces. The fields are so short that no number overflows.
func octal(field []byte) (n int64, ok bool) {
	digits := bytes.TrimRight(field, "\x00 ")
	if len(digits) == 0 || len(digits) == len(field) {
		return 0, false
	}
	for _, d := range digits {
		if d < '0' || d > '7' {
			return 0, false
		}
		n = n<<3 | int64(d-'0')
	}
	return n, true
}

func zero(data []byte) bool {
	for _, b := range data {
		if b != 0 {
			return false
		}
	}
	return true
}
