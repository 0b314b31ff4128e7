package imagefolder

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	scale "golang.org/x/image/draw"

	"github.com/espalier-ml/espalier/datasets/internal/memory"
)

// decode makes the three parts of the entries, on all cores.
func decode(entries []entry, cfg Config, lim limits) (memory.Parts, error) {
	var none memory.Parts
	l, err := arrange(cfg.Path, entries)
	if err != nil {
		return none, err
	}
	// All headers are looked at before anything is decoded, so that what has the wrong size costs nothing.
	shape, err := common(l.images, cfg, lim)
	if err != nil {
		return none, err
	}
	size := shape.Height * shape.Width * shape.Channels
	if total := int64(size) * int64(len(l.images)); total > lim.bytes {
		return none, &Error{Kind: ErrLimit, File: cfg.Path, Expected: fmt.Sprintf("decoded images of at most %d bytes in all", lim.bytes),
			Came: strconv.FormatInt(total, 10), Remedy: "set Config.MaxBytes if there is memory for them, or Config.Size to make them smaller"}
	}
	var all [parts]memory.Contents
	for part, places := range l.split(cfg.Validation, cfg.Test, cfg.SplitSeed) {
		if len(places) == 0 {
			return none, &Error{Kind: ErrFormat, File: cfg.Path, Expected: "images for the " + partNames[part] + " part",
				Came: fmt.Sprintf("none of %d", len(l.images)), Remedy: "give a folder of that name, or a larger share in the Config"}
		}
		c := shape
		c.Part, c.ClassNames = partNames[part], l.classes
		c.Inputs, c.Labels = make([]uint8, len(places)*size), make([]int32, len(places))
		err := parallel(len(places), func(i int) error {
			c.Labels[i] = int32(places[i].class)
			m, err := picture(places[i].entry.content)
			if err == nil && cfg.Size == 0 && m.Bounds().Size() != image.Pt(c.Width, c.Height) {
				err = errors.New("its size is not that of its header")
			}
			if err != nil {
				return broken(cfg.Path, places[i].entry.name, "an image that can be decoded", err)
			}
			pack(c.Inputs[i*size:][:size], m, cfg.Size, c.Channels)
			return nil
		})
		if err != nil {
			return none, err
		}
		all[part] = c
	}
	return memory.Parts{Train: all[inTrain], Validation: all[inValidation], Test: all[inTest]}, nil
}

// common returns the height, width and channels of all images, by their headers.
func common(images []place, cfg Config, lim limits) (memory.Contents, error) {
	var none memory.Contents
	headers := make([]image.Config, len(images))
	err := parallel(len(images), func(i int) (err error) {
		e := images[i].entry
		if headers[i], err = header(e.content); err != nil {
			return broken(cfg.Path, e.name, "a PNG or JPEG image", err)
		}
		w, h := headers[i].Width, headers[i].Height
		if w < 1 || h < 1 || w > lim.pixels/h {
			return &Error{Kind: ErrLimit, File: cfg.Path, Entry: e.name, Expected: fmt.Sprintf("an image of 1 to %d pixels", lim.pixels),
				Came: fmt.Sprintf("%dx%d", w, h)}
		}
		if w*h > 1<<20 && w*h/lim.density > len(e.content) {
			return &Error{Kind: ErrLimit, File: cfg.Path, Entry: e.name, Expected: fmt.Sprintf("at most %d pixels from a byte", lim.density),
				Came: fmt.Sprintf("%dx%d from %d", w, h, len(e.content)), Remedy: "do not trust this image"}
		}
		return nil
	})
	if err != nil {
		return none, err
	}
	pixels, encoded := 0, 0
	for i, h := range headers {
		pixels, encoded = pixels+h.Width*h.Height, encoded+len(images[i].entry.content)
	}
	if pixels > lim.pixels && pixels/lim.density > encoded { // many small ones that lie come to much
		return none, &Error{Kind: ErrLimit, File: cfg.Path, Expected: fmt.Sprintf("at most %d pixels from a byte", lim.density),
			Came: fmt.Sprintf("%d images with %d from %d", len(images), pixels, encoded), Remedy: "do not trust these images"}
	}
	c := memory.Contents{Height: cfg.Size, Width: cfg.Size, Channels: cfg.Channels}
	if cfg.Size == 0 {
		c.Height, c.Width = headers[0].Height, headers[0].Width
		for i, h := range headers {
			if h.Height != c.Height || h.Width != c.Width {
				return none, &Error{Kind: ErrFormat, File: cfg.Path, Entry: images[i].entry.name,
					Expected: fmt.Sprintf("%dx%d pixels like %q", c.Width, c.Height, images[0].entry.name),
					Came:     fmt.Sprintf("%dx%d", h.Width, h.Height), Remedy: "set Config.Size to bring all images to one size"}
			}
		}
	}
	if c.Channels == 0 {
		c.Channels = 1
		for _, h := range headers {
			if h.ColorModel != color.GrayModel && h.ColorModel != color.Gray16Model {
				c.Channels = 3
			}
		}
	}
	return c, nil
}

// pngStart and jpegStart are how these files begin, whatever their name says.
var pngStart, jpegStart = []byte("\x89PNG\r\n\x1a\n"), []byte{0xff, 0xd8, 0xff}

var errNeither = errors.New("it begins like neither")

func header(content []byte) (image.Config, error) {
	switch r := bytes.NewReader(content); {
	case bytes.HasPrefix(content, pngStart):
		return png.DecodeConfig(r)
	case bytes.HasPrefix(content, jpegStart):
		return jpeg.DecodeConfig(r)
	}
	return image.Config{}, errNeither
}

func picture(content []byte) (image.Image, error) {
	switch r := bytes.NewReader(content); {
	case bytes.HasPrefix(content, pngStart):
		return png.Decode(r)
	case bytes.HasPrefix(content, jpegStart):
		return jpeg.Decode(r)
	}
	return nil, errNeither
}

// opaque returns m without its transparency, with the colours that transparent pixels hide.
func opaque(m image.Image) *image.RGBA {
	b := m.Bounds()
	out := image.NewRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
	if o, ok := m.(interface{ Opaque() bool }); ok && o.Opaque() {
		draw.Draw(out, out.Rect, m, b.Min, draw.Src)
		return out
	}
	for y := range b.Dy() {
		for x := range b.Dx() {
			c := color.NRGBAModel.Convert(m.At(b.Min.X+x, b.Min.Y+y)).(color.NRGBA)
			c.A = 255
			out.SetRGBA(x, y, color.RGBA(c))
		}
	}
	return out
}

// pack writes m to out, [height, width, channels], scaled when side isn't 0.
func pack(out []uint8, m image.Image, side, channels int) {
	rgba := opaque(m)
	if side != 0 {
		w, h := rgba.Rect.Dx(), rgba.Rect.Dy()
		s := min(w, h)
		middle := image.Rect((w-s)/2, (h-s)/2, (w-s)/2+s, (h-s)/2+s)
		scaled := image.NewRGBA(image.Rect(0, 0, side, side))
		scale.BiLinear.Scale(scaled, scaled.Rect, rgba, middle, scale.Src, nil)
		rgba = scaled
	}
	for i := range len(out) / channels {
		p := rgba.Pix[4*i:][:3]
		if channels == 3 {
			copy(out[3*i:], p)
			continue
		}
		// The luma of JPEG, as color.GrayModel computes it; gray pixels keep their value.
		out[i] = uint8((19595*uint32(p[0]) + 38470*uint32(p[1]) + 7471*uint32(p[2]) + 1<<15) >> 16)
	}
}

// parallel calls f for 0 to n-1 on all cores, and returns the error of the lowest index that has one.
func parallel(n int, f func(i int) error) error {
	var (
		next  atomic.Int64
		wg    sync.WaitGroup
		mu    sync.Mutex
		at    = n
		first error
	)
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			// Indices are handed out in order, so that all below a failing one are tried, too.
			for i := int(next.Add(1) - 1); i < n; i = int(next.Add(1) - 1) {
				if err := f(i); err != nil {
					next.Store(int64(n))
					mu.Lock()
					if i < at {
						at, first = i, err
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return first
}
