package kernelext

import (
	"encoding/json"
	"image"
	"os"
	"path/filepath"
	"testing"

	"github.com/espalier-ml/espalier/kernelext/result"
	"github.com/espalier-ml/espalier/pkg/report"
)

func TestLastExpression(t *testing.T) {
	path := filepath.Join(t.TempDir(), "result")
	t.Setenv("ESPALIER_RESULT", path)
	for mime, v := range map[string]any{
		"text/html": report.Table{Columns: []report.Column{{Name: "a"}}, Rows: [][]any{{1}}}, "image/png": image.NewGray(image.Rect(0, 0, 2, 2)),
	} {
		result.Show(v)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ Data map[string]any }
		if err := json.Unmarshal(text, &got); err != nil || got.Data[mime] == nil || got.Data["text/plain"] == nil {
			t.Errorf("%T is shown as %s (error %v), want %s and text", v, text, err, mime)
		}
	}
	for want, v := range map[string]any{
		"(0,0)-(28,28)": image.Rect(0, 0, 28, 28),
		"cannot show *image.Uniform: it has 2000000000 × 2000000000 pixels, at most 67108864 in all can be shown: cut a part out of it": image.Black,
	} {
		result.Show(v)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var got struct{ Data map[string]any }
		if err := json.Unmarshal(text, &got); err != nil || got.Data["text/plain"] != want || got.Data["image/png"] != nil {
			t.Errorf("%T is shown as %s (error %v), want the text %s", v, text, err, want)
		}
	}
}
