package kernelext

import (
	"image"

	"github.com/espalier-ml/espalier/kernelext/result"
	"github.com/espalier-ml/espalier/pkg/report"
)

func init() {
	// A last expression shows itself as Show would show it.
	result.Forms = append(result.Forms, func(v any) (data, metadata map[string]any, err error) {
		switch v.(type) {
		case report.Table, *report.Table, image.Rectangle, image.Image:
			return bundle(v)
		}
		return nil, nil, nil
	})
}
