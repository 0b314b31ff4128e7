package report

// Progress is how a training stands after a step, for those who look on while it runs. What was not measured at that step is NaN or nil.
type Progress struct {
	Step, Total int
	Loss        float64 // mean training loss of the last steps
	Accuracy    float64 // on validation data, from 0 to 1
	Layers      []Layer // the weights that are left in each layer, where that has just changed
}

// Layer is how many of a layer's weights are left.
type Layer struct {
	Name       string
	Kept, Size int
}
