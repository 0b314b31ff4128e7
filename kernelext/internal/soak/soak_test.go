package soak

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestJudge(t *testing.T) {
	parse := func(lines string) []Sample {
		var samples []Sample
		for d := json.NewDecoder(strings.NewReader(lines)); d.More(); {
			var s Sample
			if err := d.Decode(&s); err != nil {
				t.Fatal(err)
			}
			samples = append(samples, s)
		}
		return samples
	}
	at := func(cells, mb, files, left string) string {
		return `{"cells":` + cells + `,"of":{"espalier":{"rss":` + mb + `000000,"files":` + files + `},"gopls":{"rss":` + cells + `0000000,"files":9}},"left":` + left + `}`
	}
	const end = `{"end":true,"alive":[],"files":[]}`
	for name, c := range map[string]struct {
		lines string
		want  int
	}{
		"flat":            {at("100", "20", "9", "2") + at("200", "30", "9", "2") + at("300", "31", "10", "2") + end, 0},
		"memory grows":    {at("100", "20", "9", "2") + at("200", "30", "9", "2") + at("300", "90", "9", "2") + end, 1},
		"files grow":      {at("100", "20", "9", "2") + at("200", "30", "9", "2") + at("300", "30", "30", "2") + end, 1},
		"temporary files": {at("100", "20", "9", "2") + at("200", "30", "9", "2") + at("300", "30", "9", "7") + end, 1},
		"processes":       {at("100", "20", "9", "2") + at("200", "30", "9", "2") + at("300", "30", "9", "2") + `{"end":true,"alive":["gopls"],"files":["gonb_1"]}`, 2},
		"no end":          {at("100", "20", "9", "2"), 1},
	} {
		if got := Judge(parse(c.lines)); len(got) != c.want {
			t.Errorf("%s: %q, want %d problems", name, got, c.want)
		}
	}
}
