package magic

import (
	"context"
	"fmt"
	"html"
	"strings"
)

// Help lists the commands.
var Help = Magic{
	Name: "help", Usage: "[COMMAND]", Short: "lists the commands, or says more about one",
	Complete: func(all []Magic, _ string, before []string) []string {
		return first(before, append(names(all), names(withoutOurs(all))...))
	},
	Run: func(_ context.Context, k Kernel, c Call) error {
		if len(c.Args) > 0 {
			doc := Document(k.Magics(), "%"+strings.TrimLeft(c.Args[0], "%"))
			if doc == "" {
				return fmt.Errorf("%s", Unknown(k.Magics(), "%"+c.Args[0]))
			}
			k.Print(doc + "\n")
			return nil
		}
		k.Show(map[string]any{"text/plain": HelpText(k.Magics()), "text/html": helpHTML(k.Magics())})
		return nil
	},
}

const (
	helpCells = "A cell is Go. What it declares stays, variables keep their values; statements run, and the value of a last expression is shown (a ; at its end silences it). " +
		"name? shows documentation. Lines that begin with % or ! are commands: they run first."
	helpShell = "!COMMAND runs a shell command, !*COMMAND in the directory where cells are compiled. One that fails ends the cell; add `|| true` where it may."
)

// HelpText lists all commands as text.
func HelpText(all []Magic) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n\nOf this kernel:\n", helpCells, helpShell)
	list := func(magics []Magic) {
		width := 0
		for _, m := range magics {
			width = max(width, len(m.form()))
		}
		for _, m := range magics {
			fmt.Fprintf(&b, "  %-*s  %s\n", width, m.form(), m.Short)
		}
	}
	list(all)
	b.WriteString("\nOf GoNB:\n")
	list(withoutOurs(all))
	return strings.TrimRight(b.String(), "\n")
}

func helpHTML(all []Magic) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<p>%s</p><p>%s</p>", html.EscapeString(helpCells), html.EscapeString(helpShell))
	list := func(title string, magics []Magic) {
		fmt.Fprintf(&b, "<table><caption>%s</caption>", title)
		for _, m := range magics {
			fmt.Fprintf(&b, `<tr><td style="text-align:left"><code>%s</code></td><td style="text-align:left">%s</td></tr>`, html.EscapeString(m.form()), html.EscapeString(m.Short))
		}
		b.WriteString("</table>")
	}
	list("Of this kernel", all)
	list("Of GoNB", withoutOurs(all))
	return b.String()
}

func withoutOurs(all []Magic) []Magic {
	var rest []Magic
	for _, m := range gonbs {
		if _, ours := Find(all, m.Name); !ours {
			rest = append(rest, m)
		}
	}
	return rest
}

func names(magics []Magic) []string {
	var list []string
	for _, m := range magics {
		list = append(list, m.Name)
	}
	return list
}

// form is how a command is written.
func (m Magic) form() string { return strings.TrimSpace("%" + m.Name + " " + m.Usage) }

// Document returns the documentation of the command on a line, of all commands for a line without one, "" for one that is unknown.
func Document(all []Magic, line string) string {
	line = strings.TrimPrefix(strings.TrimSpace(line), "//gonb:")
	if strings.HasPrefix(line, "!") {
		return helpShell
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(line, "%"), " ")
	m, ok := Find(all, name)
	if !ok {
		m, ok = Find(gonbs, name)
	}
	if !ok && name == "" {
		return HelpText(all)
	}
	if !ok {
		return ""
	}
	doc := m.form() + "\n\n" + strings.ToUpper(m.Short[:1]) + m.Short[1:] + "."
	if m.Doc != "" {
		doc += "\n\n" + m.Doc
	}
	for i, e := range m.Examples {
		if i == 0 {
			doc += "\n\nFor example:"
		}
		doc += "\n    " + e
	}
	return doc
}
