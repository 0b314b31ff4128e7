package result

import (
	"fmt"
	"html"
	"reflect"
	"slices"
	"strings"
)

// maxVariables bounds the rows of a network's table.
const maxVariables = 200

// variable is a row of a network's table.
type variable struct {
	path, shape string
	size        int
}

// network presents a GoMLX store as a table of its trainable variables; nil for any other value. It knows the type by its methods, and so does not link GoMLX
// into cells that have nothing of it.
func network(v any) map[string]any {
	value := reflect.ValueOf(v)
	if value.Kind() != reflect.Pointer || value.IsNil() || value.Type().String() != "*model.Store" {
		return nil
	}
	method := value.MethodByName("IterVariables")
	if !method.IsValid() || method.Type().NumIn() != 0 || method.Type().NumOut() != 1 {
		return nil
	}
	var variables []variable
	total, more := 0, 0
	for each := range method.Call(nil)[0].Seq() {
		path, ok := each.Interface().(interface{ Path() string })
		shape := each.MethodByName("Shape")
		if !ok || !shape.IsValid() || shape.Type().NumIn() != 0 || shape.Type().NumOut() != 1 {
			return nil
		}
		if each.Kind() == reflect.Pointer {
			if trainable := each.Elem().FieldByName("Trainable"); trainable.IsValid() && trainable.Kind() == reflect.Bool && !trainable.Bool() {
				more++
				continue
			}
		}
		s := shape.Call(nil)[0].Interface()
		size, ok := s.(interface{ Size() int })
		if !ok {
			return nil
		}
		variables = append(variables, variable{path.Path(), fmt.Sprint(s), size.Size()})
		total += size.Size()
	}
	slices.SortFunc(variables, func(a, b variable) int { return strings.Compare(a.path, b.path) })
	title := fmt.Sprintf("A network of %d parameters in %d variables", total, len(variables))
	if more > 0 {
		title += fmt.Sprintf(", and %d more that are not trained", more)
	}
	cut := ""
	if n := len(variables); n > maxVariables {
		variables, cut = variables[:maxVariables], fmt.Sprintf("The first %d of %d variables.", maxVariables, n)
	}
	return map[string]any{"text/plain": networkText(title, cut, variables), "text/html": networkHTML(title, cut, variables)}
}

func networkText(title, cut string, variables []variable) string {
	width, shapes := len("variable"), len("shape")
	for _, v := range variables {
		width, shapes = max(width, len(v.path)), max(shapes, len(v.shape))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%-*s  %-*s  %10s\n", title, width, "variable", shapes, "shape", "parameters")
	for _, v := range variables {
		fmt.Fprintf(&b, "%-*s  %-*s  %10d\n", width, v.path, shapes, v.shape, v.size)
	}
	b.WriteString(cut)
	return strings.TrimRight(b.String(), "\n")
}

func networkHTML(title, cut string, variables []variable) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<table><caption>%s</caption><thead><tr>", html.EscapeString(title))
	b.WriteString(`<th style="text-align:left">variable</th><th style="text-align:left">shape</th><th style="text-align:right">parameters</th></tr></thead><tbody>`)
	for _, v := range variables {
		fmt.Fprintf(&b, `<tr><td style="text-align:left">%s</td><td style="text-align:left">%s</td><td style="text-align:right">%d</td></tr>`,
			html.EscapeString(v.path), html.EscapeString(v.shape), v.size)
	}
	b.WriteString("</tbody></table>")
	if cut != "" {
		b.WriteString("<p><small>" + cut + "</small></p>")
	}
	return b.String()
}
