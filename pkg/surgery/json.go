package surgery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/ml/model"
)

// Plans are JSON of this form and version. A plan names all that is needed to build the smaller network again from its weights and the model function.
const (
	planFormat  = "espalier surgery plan"
	planVersion = 1
	// largestPlan bounds what is read: a plan for a network of millions of units is smaller.
	largestPlan = 64 << 20
	// largestLabels bounds the lengths of all axes of the variables that it names, for each index of which there is a label.
	largestLabels = 1 << 26
)

type planJSON struct {
	Format    string         `json:"format"`
	Version   int            `json:"version"`
	Network   string         `json:"network"` // digest
	Criterion string         `json:"criterion,omitempty"`
	Budget    string         `json:"budget,omitempty"`
	Inputs    []inputJSON    `json:"inputs"`
	Groups    []groupJSON    `json:"groups"`
	Variables []variableJSON `json:"variables"` // that get smaller, as they were
}

type inputJSON struct {
	Type  string `json:"type"`
	Shape []int  `json:"shape"`
}

type groupJSON struct {
	Name    string   `json:"name"`
	Units   int      `json:"units"`
	Removed []int    `json:"removed"`
	Places  []string `json:"places"` // path:axis, for the reader
}

type variableJSON struct {
	Path    string        `json:"path"`
	Shape   []int         `json:"shape"`
	Removed []removedJSON `json:"removed"` // for the reader: it follows from the groups
}

type removedJSON struct {
	Axis    int   `json:"axis"`
	Indices []int `json:"indices"`
}

// WriteJSON writes the plan. To edit it, change what the groups remove; the places and the indices are there to be read, and are made anew when the plan is written again, as it has to be for
// Rebuild after units of other groups were removed.
func (p *Plan) WriteJSON(w io.Writer) error {
	removed, err := p.Indices()
	if err != nil {
		return err
	}
	j := planJSON{Format: planFormat, Version: planVersion, Network: p.network.digest, Criterion: p.Criterion, Budget: p.Budget}
	for _, s := range p.network.inputs {
		j.Inputs = append(j.Inputs, inputJSON{s.DType.String(), append([]int{}, s.Dimensions...)})
	}
	for _, g := range p.network.groups {
		out := groupJSON{Name: g.Name, Units: g.Size, Removed: append([]int{}, p.Removed[g.Name]...)}
		slices.Sort(out.Removed)
		for _, m := range g.Members {
			out.Places = append(out.Places, m.Place())
		}
		j.Groups = append(j.Groups, out)
	}
	for _, path := range p.network.analysis.order {
		if removed[path] == nil {
			continue
		}
		v := variableJSON{Path: path, Shape: p.network.analysis.shapes[path]}
		for axis := range v.Shape {
			if indices := removed[path][axis]; indices != nil {
				v.Removed = append(v.Removed, removedJSON{axis, indices})
			}
		}
		j.Variables = append(j.Variables, v)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(j); err != nil {
		return err
	}
	_, err = w.Write(numbers.ReplaceAllFunc(b.Bytes(), func(list []byte) []byte {
		line := bytes.Join(bytes.Fields(bytes.Trim(list, "[]")), []byte(" "))
		return slices.Concat([]byte("["), line, []byte("]"))
	}))
	return err
}

// numbers are lists of numbers, of which each would have a line of its own. There is no line break within a string.
var numbers = regexp.MustCompile(`\[\n[\s\d,]*\d\s*\]`)

// ReadPlan reads a plan that was made for this network.
//
// Errors: *FormatError; *OtherNetworkError; those of Plan.Check.
func (n *Network) ReadPlan(r io.Reader) (*Plan, error) {
	j, err := readPlan(r)
	if err != nil {
		return nil, err
	}
	return n.bind(j)
}

// readPlan reads a plan's JSON and checks its form.
func readPlan(r io.Reader) (*planJSON, error) {
	if r == nil {
		return nil, &FormatError{errors.New("the reader is nil")}
	}
	data, err := io.ReadAll(io.LimitReader(r, largestPlan+1))
	if err != nil {
		return nil, &FormatError{err}
	}
	if len(data) > largestPlan {
		return nil, &FormatError{fmt.Errorf("it has more than %d bytes", largestPlan)}
	}
	j := &planJSON{}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(j); err != nil {
		return nil, &FormatError{err}
	}
	switch {
	case j.Format != planFormat:
		return nil, &FormatError{fmt.Errorf("its format is %q, expected %q", j.Format, planFormat)}
	case j.Version != planVersion:
		return nil, &FormatError{fmt.Errorf("its version is %d, expected %d", j.Version, planVersion)}
	case d.More():
		return nil, &FormatError{errors.New("something follows it")}
	}
	indices := 0
	for _, v := range j.Variables {
		for _, d := range v.Shape {
			if d < 1 || d > largestLabels {
				return nil, &FormatError{fmt.Errorf("%s has the shape %v", v.Path, v.Shape)}
			}
			if indices += d; indices > largestLabels {
				return nil, &FormatError{fmt.Errorf("its variables have more than %d indices", largestLabels)}
			}
		}
	}
	return j, nil
}

// bind makes a plan for this network of what was read.
func (n *Network) bind(j *planJSON) (*Plan, error) {
	if j.Network != n.digest {
		return nil, &OtherNetworkError{Plan: j.Network, Network: n.digest}
	}
	p := n.Empty()
	p.Criterion, p.Budget = j.Criterion, j.Budget
	seen := map[string]bool{}
	for _, g := range j.Groups {
		if seen[g.Name] {
			return nil, &FormatError{fmt.Errorf("the group %s is there twice", g.Name)}
		}
		seen[g.Name] = true
		if len(g.Removed) > 0 {
			p.Removed[g.Name] = slices.Sorted(slices.Values(g.Removed))
		}
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	return p, nil
}

// complete returns a *FormatError if the plan does not say which shape a variable of the store had before it was cut, as after groups were edited by hand.
func (j *planJSON) complete(store *model.Store, before map[string][]int) error {
	for _, g := range j.Groups {
		for _, place := range g.Places {
			path := place[:max(0, strings.LastIndexByte(place, ':'))]
			if len(g.Removed) > 0 && before[path] == nil && store.GetVariable(path) != nil {
				return &FormatError{fmt.Errorf("the group %s removes units of %s, which is not among the variables: after an edit, read it with Network.ReadPlan and write it again", g.Name, path)}
			}
		}
	}
	return nil
}

// shapes returns the shapes of the inputs.
func (j *planJSON) shapes() ([]shapes.Shape, error) {
	var all []shapes.Shape
	for i, in := range j.Inputs {
		t, err := dtypes.DTypeString(in.Type)
		if err != nil {
			return nil, &FormatError{fmt.Errorf("input %d: %w", i, err)}
		}
		if slices.ContainsFunc(in.Shape, func(d int) bool { return d < 0 }) {
			return nil, &FormatError{fmt.Errorf("input %d has the shape %v", i, in.Shape)}
		}
		all = append(all, shapes.Make(t, in.Shape...))
	}
	return all, nil
}
