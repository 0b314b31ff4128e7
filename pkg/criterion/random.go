package criterion

// Random keeps weights, or units, by lot: the control that every other criterion has to beat. The pool is the mean, so that a unit's chance does
// not depend on its size.
var Random = Criterion{Name: "random", Cite: "control", Needs: NeedUniform, Pool: Mean, Score: func(in Inputs) *Node {
	return in.Uniform // [in.Param.Shape]
}}
