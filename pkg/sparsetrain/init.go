package sparsetrain

import "math"

// Init says which value a grown weight starts with.
type Init struct {
	Name, Cite string
	Needs      Needs
	Value      func(l *Layer, i int) float32 // of weight i, which is being grown. nil: 0
}

// Zero starts at 0, so that growing does not change what the network computes.
var Zero = Init{Name: "zero"}

// HeNormal draws from the distribution that experiment.Init starts layers with: normal with deviation √(2/fan-in), where fan-in is that of the dense
// layer. He et al. 2015, arXiv:1502.01852.
var HeNormal = Init{Name: "he-normal", Cite: "He et al. 2015, arXiv:1502.01852", Value: func(l *Layer, _ int) float32 {
	fanIn := l.Size() / max(1, l.Param.Shape.Dimensions[l.Param.Out])
	return float32(l.Random.NormFloat64() * math.Sqrt(2/float64(max(1, fanIn))))
}}

// RandomSign starts at 0 and draws the sign that the weight may have from then on.
var RandomSign = Init{Name: "random-sign", Cite: "Bellec et al. 2018, arXiv:1711.05136", Needs: NeedSigns, Value: func(l *Layer, i int) float32 {
	l.Positive[i] = l.Random.Uint64()&1 == 1
	return 0
}}
