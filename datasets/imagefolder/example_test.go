package imagefolder_test

import (
	"fmt"
	"image"
	"image/color"
	"image/png"
	"log"
	"os"
	"path/filepath"

	"github.com/espalier-ml/espalier/datasets/imagefolder"
)

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "shades")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for class, shade := range map[string]uint8{"black": 0, "white": 255} {
		if err := os.MkdirAll(filepath.Join(dir, class), 0o755); err != nil {
			log.Fatal(err)
		}
		for i := range 10 {
			m := image.NewGray(image.Rect(0, 0, 8, 6))
			for p := range m.Pix {
				m.Pix[p] = shade
			}
			m.SetGray(i%8, i/8, color.Gray{128})
			f, err := os.Create(filepath.Join(dir, class, fmt.Sprintf("%d.png", i)))
			if err != nil {
				log.Fatal(err)
			}
			if err := png.Encode(f, m); err != nil {
				log.Fatal(err)
			}
			if err := f.Close(); err != nil {
				log.Fatal(err)
			}
		}
	}
	data, err := imagefolder.Open(imagefolder.Config{Path: dir, Validation: 0.2, Test: 0.2, CacheDir: filepath.Join(dir, ".cache")})
	if err != nil {
		log.Fatal(err)
	}
	for _, part := range []*imagefolder.Dataset{data.Train, data.Validation, data.Test} {
		fmt.Println(part.ShortName(), part.Len(), part.Shape(), part.ClassNames())
	}
	// Output:
	// train 12 [6 8 1] [black white]
	// validation 4 [6 8 1] [black white]
	// test 4 [6 8 1] [black white]
}
