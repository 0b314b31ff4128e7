package kernelext

import (
	"bytes"
	"fmt"
	"html"
	"strings"

	"github.com/espalier-ml/espalier/pkg/report"
)

// maxRows is how many rows of a table are shown: more belong into a file.
const maxRows = 50

// tableBundle presents a table as HTML and as aligned text, both cut after maxRows rows with a line that says so.
func tableBundle(t report.Table) (map[string]any, error) {
	cut := ""
	if n := len(t.Rows); n > maxRows {
		t.Rows = t.Rows[:maxRows]
		cut = fmt.Sprintf("The first %d of %d rows; the table's CSV method writes all of them.", maxRows, n)
	}
	var text bytes.Buffer
	if err := t.Text(&text); err != nil {
		return nil, err
	}
	if cut != "" {
		fmt.Fprintf(&text, "%s\n", cut)
	}
	htmlForm, err := tableHTML(t, cut)
	if err != nil {
		return nil, err
	}
	return map[string]any{"text/plain": strings.TrimRight(text.String(), "\n"), "text/html": htmlForm}, nil
}

// tableHTML needs no style sheet and no script, which GitHub and an untrusted notebook would drop. Columns are aligned twice: GitHub keeps the
// old attribute, JupyterLab's own rules give way only to the style.
func tableHTML(t report.Table, cut string) (string, error) {
	rows, err := t.Cells()
	if err != nil {
		return "", err
	}
	align := make([]string, len(t.Columns))
	for i, numeric := range t.Numeric() {
		align[i] = "left"
		if numeric {
			align[i] = "right"
		}
	}
	var b strings.Builder
	row := func(tag string, cells []string) {
		b.WriteString("<tr>")
		for i, text := range cells {
			fmt.Fprintf(&b, `<%s align="%s" style="text-align:%s">%s</%s>`, tag, align[i], align[i], html.EscapeString(text), tag)
		}
		b.WriteString("</tr>\n")
	}
	b.WriteString("<table>\n")
	if t.Title != "" {
		fmt.Fprintf(&b, "<caption>%s</caption>\n", html.EscapeString(t.Title))
	}
	b.WriteString("<thead>\n")
	var head []string
	for _, c := range t.Columns {
		head = append(head, c.Title())
	}
	row("th", head)
	b.WriteString("</thead>\n<tbody>\n")
	for _, cells := range rows {
		row("td", cells)
	}
	b.WriteString("</tbody>\n</table>\n")
	for _, line := range []string{cut, t.Caption} {
		if line != "" {
			fmt.Fprintf(&b, "<p><small>%s</small></p>\n", html.EscapeString(line))
		}
	}
	return b.String(), nil
}
