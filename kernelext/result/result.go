// Package result is what the kernel gives the value of a cell's last expression to. Cells need not import it: the kernel adds the call.
//
// It imports next to nothing, since every cell that ends in an expression is linked with it. Types of other packages are recognised by their methods; package
// kernelext, where a cell has it, adds the forms that it knows.
package result

import (
	"fmt"
	"os"
	"strings"
)

// file is the environment variable that names the file in which the kernel looks for the value.
const file = "ESPALIER_RESULT"

// Forms are further ways to present values, tried in order: each returns the forms by MIME type, or nil for a value that it does not know.
var Forms []func(v any) (data, metadata map[string]any, err error)

// Show leaves the value of the cell's last expression for the kernel to display; nil shows nothing. Of several values, as of a call that returns some, a last one that is nil is left out (an
// error that did not happen); if more than one is left they stand beside each other as text. Outside a notebook it prints the text form.
func Show(values ...any) {
	if n := len(values); n > 1 && values[n-1] == nil {
		values = values[:n-1]
	}
	if len(values) == 0 || len(values) == 1 && values[0] == nil {
		return
	}
	v := values[0]
	if len(values) > 1 {
		v = beside(values)
	}
	data, metadata, err := forms(v)
	if err != nil {
		err = fmt.Errorf("cannot show %T: %w", v, err)
		fmt.Fprintln(os.Stderr, err)
		data, metadata = map[string]any{"text/plain": err.Error()}, nil
	}
	path := os.Getenv(file)
	if path == "" {
		text, _ := data["text/plain"].(string)
		fmt.Println(text)
		return
	}
	if err := write(path, data, metadata); err != nil {
		fmt.Fprintf(os.Stderr, "the cell's value could not be shown: %v\n", err)
	}
}

// beside are values that are shown together.
type beside []any

// MIMEBundle returns the texts of the values, one after the other.
func (b beside) MIMEBundle() (map[string]any, error) {
	texts := make([]string, len(b))
	for i, v := range b {
		texts[i] = Text(v)
	}
	return map[string]any{"text/plain": strings.Join(texts, ", ")}, nil
}

// forms presents a value. Of values that panic meanwhile it returns an error.
func forms(v any) (data, metadata map[string]any, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("it panicked: %v", r)
		}
	}()
	if d, ok := v.(interface {
		MIMEBundle() (map[string]any, error)
	}); ok {
		if data, err = d.MIMEBundle(); err != nil {
			return nil, nil, err
		}
		if m, ok := v.(interface{ MIMEMetadata() map[string]any }); ok {
			metadata = m.MIMEMetadata()
		}
		return data, metadata, nil
	}
	for _, form := range Forms {
		if data, metadata, err := form(v); err != nil || data != nil {
			return data, metadata, err
		}
	}
	if data := network(v); data != nil {
		return data, nil, nil
	}
	return map[string]any{"text/plain": Text(v)}, nil, nil
}

// write writes the forms where the kernel reads them, once the program has ended.
func write(path string, data, metadata map[string]any) error {
	var b strings.Builder
	b.WriteString(`{"data":`)
	if err := encode(&b, data); err != nil {
		return err
	}
	b.WriteString(`,"metadata":`)
	if err := encode(&b, metadata); err != nil {
		return err
	}
	b.WriteString("}")
	return os.WriteFile(path, []byte(b.String()), 0o600)
}
