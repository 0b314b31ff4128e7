package magic

import (
	"context"
	"fmt"
	"html"
	"strings"

	"github.com/espalier-ml/espalier/kernelext/internal/keep"
)

// Who lists the variables.
var Who = Magic{
	Name: "who", Usage: "[NAME…]", Short: "lists the notebook's variables: type, size, the cells they come from, whether they are out of date",
	Doc:      "A variable keeps its value until its own declaration is run again. It is out of date if code that its value came from has changed since.",
	Complete: variables,
	Run: func(_ context.Context, k Kernel, c Call) error {
		list, err := keep.List(k.State())
		if err != nil {
			return err
		}
		if len(c.Args) > 0 {
			byName := map[string]keep.Variable{}
			for _, v := range list {
				byName[v.Name] = v
			}
			list = nil
			for _, name := range c.Args {
				v, ok := byName[name]
				if !ok {
					return fmt.Errorf("%s: %w", name, keep.ErrNoVariable)
				}
				list = append(list, v)
			}
		}
		if len(list) == 0 {
			k.Print("no variables yet\n")
			return nil
		}
		k.Show(map[string]any{"text/plain": whoText(list), "text/html": whoHTML(list)})
		return nil
	},
}

var whoColumns = []string{"name", "type", "size", "made in cell", "changed in cell", "note"}

func whoRow(v keep.Variable) []string {
	note := v.Stale
	switch {
	case v.Rerun:
		note = "will be evaluated anew"
	case v.Unkept != "":
		note = "not kept: " + v.Unkept
	case note != "":
		note = "out of date: " + note
	}
	return []string{v.Name, v.Type, size(v.Size), fmt.Sprint(v.Cell), fmt.Sprint(v.Changed), note}
}

func size(bytes int64) string {
	switch {
	case bytes < 10_000:
		return fmt.Sprintf("%d B", bytes)
	case bytes < 10_000_000:
		return fmt.Sprintf("%.0f kB", float64(bytes)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(bytes)/1e6)
}

func whoText(list []keep.Variable) string {
	rows := [][]string{whoColumns}
	for _, v := range list {
		rows = append(rows, whoRow(v))
	}
	widths := make([]int, len(whoColumns))
	for _, row := range rows {
		for i, text := range row {
			widths[i] = max(widths[i], len([]rune(text)))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		line := ""
		for i, text := range row {
			line += text + strings.Repeat(" ", widths[i]-len([]rune(text))+2)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return strings.TrimRight(b.String(), "\n")
}

func whoHTML(list []keep.Variable) string {
	var b strings.Builder
	b.WriteString("<table><thead><tr>")
	for _, c := range whoColumns {
		fmt.Fprintf(&b, `<th style="text-align:left">%s</th>`, c)
	}
	b.WriteString("</tr></thead><tbody>")
	for _, v := range list {
		b.WriteString("<tr>")
		for _, text := range whoRow(v) {
			fmt.Fprintf(&b, `<td style="text-align:left">%s</td>`, html.EscapeString(text))
		}
		b.WriteString("</tr>")
	}
	b.WriteString("</tbody></table>")
	return b.String()
}
