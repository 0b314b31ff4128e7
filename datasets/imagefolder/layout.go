package imagefolder

import (
	"cmp"
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/espalier-ml/espalier/datasets/internal/memory"
)

// The parts of a data set.
const (
	inTrain = iota
	inValidation
	inTest
	parts
)

var partNames = [parts]string{"train", "validation", "test"}

// partFolders are the names of folders that stand for a part.
var partFolders = map[string]int{"train": inTrain, "val": inValidation, "valid": inValidation, "validation": inValidation, "test": inTest}

// layout is what the names say.
type layout struct {
	classes []string
	images  []place // by name
	given   [parts]bool
}

// place is where an image belongs.
type place struct {
	entry       entry
	part, class int
}

// arrange finds part and class of each image. Entries are sorted by name.
func arrange(root string, entries []entry) (layout, error) {
	var l layout
	var images [][]string
	for _, e := range entries {
		if isImage(e.name) {
			images = append(images, strings.Split(e.name, "/"))
			l.images = append(l.images, place{entry: e})
		}
	}
	wrong := func(name, expected, came string) error {
		return &Error{Kind: ErrFormat, File: root, Entry: name, Expected: expected, Came: came,
			Remedy: "arrange the images as CLASS/IMAGE or as train/CLASS/IMAGE and test/CLASS/IMAGE"}
	}
	if len(images) == 0 {
		return l, wrong("", "PNG or JPEG images in class folders", fmt.Sprintf("%d files, none of them one", len(entries)))
	}
	skip := wrapped(images)
	depth := skip + 2
	like := 0 // the image that shows how deep they lie
	for i, p := range images {
		if len(p) == skip+3 {
			if _, named := partFolders[p[skip]]; named {
				depth, like = skip+3, i
				break
			}
		}
	}
	for i, p := range images {
		if len(p) != depth {
			return l, wrong(l.images[i].entry.name, fmt.Sprintf("an image %d folders deep, as %q", depth-1, l.images[like].entry.name),
				fmt.Sprintf("one %d deep", len(p)-1))
		}
		l.images[i].part = inTrain
		if depth == skip+3 {
			part, named := partFolders[p[skip]]
			if !named {
				return l, wrong(l.images[i].entry.name, "folders train, val and test", fmt.Sprintf("%q beside them", p[skip]))
			}
			l.images[i].part = part
			l.given[part] = true
		}
		l.classes = append(l.classes, p[depth-2])
	}
	of := l.classes // of each image
	l.classes = inOrder(slices.Compact(slices.Sorted(slices.Values(of))))
	if len(l.classes) < 2 {
		return l, wrong(l.images[0].entry.name, "at least two classes", fmt.Sprintf("only %q", l.classes[0]))
	}
	number := map[string]int{}
	for i, class := range l.classes {
		number[class] = i
	}
	for i, class := range of {
		l.images[i].class = number[class]
	}
	// Other files may lie about, but not where an image is expected: none is to be lost unseen.
	for _, e := range entries {
		if !isImage(e.name) && strings.Count(e.name, "/") >= depth-1 {
			return l, wrong(e.name, "PNG or JPEG images in class folders", "a name that ends in "+cmp.Or(path.Ext(e.name), "neither"))
		}
	}
	return l, l.complete(wrong)
}

// inOrder puts names of classes, sorted by letters, in the order of their numbers if all of them are numbers: 2 before 10.
func inOrder(names []string) []string {
	numbers := map[string]uint64{}
	for _, name := range names {
		n, err := strconv.ParseUint(name, 10, 64)
		if err != nil {
			return names
		}
		numbers[name] = n
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(numbers[a], numbers[b]) })
	return names
}

// wrapped returns how many folders hold all images together, without meaning anything.
func wrapped(images [][]string) (skip int) {
	for {
		first := images[0]
		if len(first) < skip+3 {
			return skip
		}
		if _, named := partFolders[first[skip]]; named {
			return skip
		}
		for _, p := range images {
			if len(p) < skip+3 || p[skip] != first[skip] {
				return skip
			}
		}
		skip++
	}
}

// complete checks that each class can be learnt.
func (l layout) complete(wrong func(name, expected, came string) error) error {
	seen := make([][parts]int, len(l.classes))
	for _, p := range l.images {
		seen[p.class][p.part]++
	}
	for class, n := range seen {
		if n[inTrain] == 0 {
			return wrong(l.classes[class], "images of each class to train with", "none of this one")
		}
	}
	return nil
}

// split holds out what is not given, and returns the images of each part in mixed order: first of each class in proportion, then
// together, both by seed.
func (l layout) split(validation, test float64, seed int64) (chosen [parts][]place) {
	byClass := make([][]place, len(l.classes))
	for _, p := range l.images {
		if p.part == inTrain {
			byClass[p.class] = append(byClass[p.class], p)
		} else {
			chosen[p.part] = append(chosen[p.part], p)
		}
	}
	for class, all := range byClass {
		memory.Shuffle(all, uint64(seed), uint64(class))
		total := float64(len(all))
		for _, held := range []struct {
			part  int
			share float64
		}{{inTest, test}, {inValidation, validation}} {
			if !l.given[held.part] {
				n := min(int(math.Round(total*held.share)), len(all)-1) // one at least is learnt from
				chosen[held.part], all = append(chosen[held.part], all[:n]...), all[n:]
			}
		}
		chosen[inTrain] = append(chosen[inTrain], all...)
	}
	for part := range chosen {
		memory.Shuffle(chosen[part], uint64(seed), uint64(len(l.classes)+part))
	}
	return chosen
}
