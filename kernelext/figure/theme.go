package figure

import (
	"fmt"
	"image/color"
	"os"
)

// Theme says which ground figures are drawn on. It is what the environment variable ESPALIER_THEME says, "light" or "dark", which the kernel sets
// and SetTheme changes; light without it.
type Theme string

// The themes.
const (
	Light Theme = "light"
	Dark  Theme = "dark"
)

// themeVariable is the environment variable that a Theme's zero value reads: the kernel sets it for a cell's program.
const themeVariable = "ESPALIER_THEME"

// SetTheme chooses the theme of the figures that this program draws from here on, or returns an *InputError if there is no such theme.
func SetTheme(t Theme) error {
	if t != Light && t != Dark {
		return &InputError{Figure: "theme", Problem: fmt.Sprintf("it is %q; expected %q or %q", t, Light, Dark)}
	}
	return os.Setenv(themeVariable, string(t))
}

// look returns the theme's colours, nil if there is no such theme.
func (t Theme) look() *look {
	if t == "" {
		t = Theme(os.Getenv(themeVariable))
	}
	switch t {
	case "", Light:
		return &light
	case Dark:
		return &dark
	}
	return nil
}

// chosenLook is the look of the theme that the environment names, or an *InputError about the figure.
func chosenLook(f Figure) (*look, error) {
	if l := Theme("").look(); l != nil {
		return l, nil
	}
	return nil, &InputError{Figure: f.kind(), Problem: fmt.Sprintf("the environment variable %s is %q; expected %q, %q or nothing", themeVariable, os.Getenv(themeVariable), Light, Dark)}
}

// look is the colours of a theme, named by what they are for. All of them can be told apart by colour-blind readers; what is drawn in several of
// them differs by marker, dash or hatch as well.
type look struct {
	card, border       color.RGBA
	ink, muted, faint  color.RGBA   // texts; the less important ones; grid lines
	middle             color.RGBA   // axes
	palette            []color.RGBA // series, one after the other
	sequential         []color.RGBA // from little to much
	diverging          []color.RGBA // from negative over 0 to positive
	kept, pruned, gone color.RGBA   // of a mask; gone: the cross over what was removed
}

var (
	light = look{
		card: rgb(0xffffff), border: rgb(0xd4d4d4),
		ink: rgb(0x1a1a1a), muted: rgb(0x555555), faint: rgb(0xe4e4e4), middle: rgb(0x8a8a8a),
		// Okabe and Ito's without yellow, which a white ground swallows.
		palette: []color.RGBA{rgb(0x0072b2), rgb(0xd55e00), rgb(0x009e73), rgb(0xcc79a7), rgb(0xe69f00), rgb(0x56b4e9), rgb(0x000000)},
		// ColorBrewer's YlGnBu: light is little, dark is much, in print too.
		sequential: []color.RGBA{rgb(0xffffd9), rgb(0xedf8b1), rgb(0xc7e9b4), rgb(0x7fcdbb), rgb(0x41b6c4), rgb(0x1d91c0), rgb(0x225ea8), rgb(0x253494), rgb(0x081d58)},
		// ColorBrewer's PuOr, purple for negative values.
		diverging: []color.RGBA{rgb(0x2d004b), rgb(0x542788), rgb(0x8073ac), rgb(0xb2abd2), rgb(0xf7f7f7), rgb(0xfdb863), rgb(0xe08214), rgb(0xb35806), rgb(0x7f3b08)},
		kept:      rgb(0x08519c), pruned: rgb(0xe6e6e6), gone: rgb(0xd55e00),
	}
	dark = look{
		card: rgb(0x1b1d21), border: rgb(0x43474e),
		ink: rgb(0xeceef1), muted: rgb(0xb4b9c1), faint: rgb(0x34373d), middle: rgb(0x858b95),
		// The same hues in the same order, brighter.
		palette: []color.RGBA{rgb(0x4aa8e8), rgb(0xff8a47), rgb(0x2fc79b), rgb(0xe39bc6), rgb(0xf2c14e), rgb(0xa8dcf7), rgb(0xf0f0f0)},
		// Dark is little here, as the ground is.
		sequential: []color.RGBA{rgb(0x101d45), rgb(0x253494), rgb(0x225ea8), rgb(0x1d91c0), rgb(0x41b6c4), rgb(0x7fcdbb), rgb(0xc7e9b4), rgb(0xedf8b1), rgb(0xffffd9)},
		diverging:  []color.RGBA{rgb(0xd9ccff), rgb(0xb39ddb), rgb(0x8a73c9), rgb(0x54459a), rgb(0x26282d), rgb(0x8a5510), rgb(0xc97a1c), rgb(0xf0a445), rgb(0xffd699)},
		kept:       rgb(0x56b4e9), pruned: rgb(0x383b42), gone: rgb(0xff8a47),
	}
)

func (l *look) series(i int) color.RGBA { return l.palette[i%len(l.palette)] }

// washed is what a histogram's fill of that colour looks like on the card.
func (l *look) washed(c color.RGBA) color.RGBA { return mix(l.card, c, histogramAlpha+0.15) }

// on returns what a text on a ground of that colour is written in.
func on(ground color.RGBA) color.RGBA {
	if luminance(ground) < 0.45 {
		return light.card
	}
	return light.ink
}
