package cell

import "strings"

// builder composes text from pieces of a source, and remembers which line each line comes from.
type builder struct {
	text   strings.Builder
	starts []int // for each line begun: an offset in the source on the line that it comes from, -1: none
	from   int
}

func (b *builder) begin() {
	if len(b.starts) == 0 {
		b.starts = append(b.starts, 0)
	}
}

// add appends a piece of the source.
func (b *builder) add(source string, from, to int) {
	b.begin()
	for i := from; i < to; i++ {
		if b.starts[len(b.starts)-1] < 0 && source[i] > ' ' {
			b.starts[len(b.starts)-1] = i
		}
		if source[i] == '\n' {
			b.starts = append(b.starts, i+1)
		}
	}
	b.text.WriteString(source[from:to])
	b.from = to
}

// blank appends spaces in place of a piece of the source, of which only line ends stay.
func (b *builder) blank(piece string) {
	b.begin()
	for i := range len(piece) {
		c := byte(' ')
		if piece[i] == '\n' {
			c = '\n'
			b.starts = append(b.starts, b.from+i+1)
		}
		b.text.WriteByte(c)
	}
	b.from += len(piece)
}

// insert appends what is not in the source.
func (b *builder) insert(piece string) {
	b.begin()
	for range strings.Count(piece, "\n") {
		b.starts = append(b.starts, -1)
	}
	b.text.WriteString(piece)
}

// replace appends what stands for a piece of the source that has as many lines.
func (b *builder) replace(piece, source string, from int) {
	b.begin()
	at := from
	for range strings.Count(piece, "\n") {
		at += strings.IndexByte(source[at:], '\n') + 1
		b.starts = append(b.starts, at)
	}
	b.text.WriteString(piece)
}

// finish returns the text, and for each of its lines the line of the source that it comes from, from 0; -1: none.
func (b *builder) finish(source string) (string, []int) {
	origin := make([]int, len(b.starts))
	for i, at := range b.starts {
		origin[i] = -1
		if at >= 0 {
			origin[i] = strings.Count(source[:min(at, len(source))], "\n")
		}
	}
	return b.text.String(), origin
}
