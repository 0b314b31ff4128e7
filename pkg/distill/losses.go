package distill

import (
	"github.com/gomlx/gomlx/core/graph"
)

// KL is the Kullback-Leibler divergence of the student's softened probabilities from the teacher's, times T²: T²·Σ p·(log p − log q) with p = softmax(teacher/T),
// q = softmax(student/T). The factor keeps the gradient's size the same for all temperatures. Hinton, Vinyals and Dean 2015, arXiv:1503.02531, section 2, with the
// teacher's entropy taken off, which makes it zero where both agree and changes no gradient. [batch, classes] each -> [batch]
func KL(student, teacher *graph.Node, temperature float64) *graph.Node {
	p := graph.LogSoftmax(graph.DivScalar(teacher, temperature), -1)
	q := graph.LogSoftmax(graph.DivScalar(student, temperature), -1)
	divergence := graph.ReduceSum(graph.Mul(graph.Exp(p), graph.Sub(p, q)), -1)
	return graph.MulScalar(divergence, temperature*temperature)
}

// MSE is the mean over classes of the squared differences of logits, which needs no temperature. Ba and Caruana 2014, arXiv:1312.6184, equation 1, but for the mean where they
// have half of the sum. [batch, classes] each -> [batch]
func MSE(student, teacher *graph.Node) *graph.Node { return meanSquare(graph.Sub(student, teacher)) }

// HintLoss is half of the mean of the squared differences between what an adapter makes of the student's features and the teacher's. Romero et al. 2015, arXiv:1412.6550, equation 3,
// but for the mean where they have the sum: so the weight of a hint does not depend on the width of its layer. [batch, …] each -> [batch]
func HintLoss(adapted, teacher *graph.Node) *graph.Node {
	return graph.MulScalar(meanSquare(graph.Sub(adapted, teacher)), 0.5)
}

// meanSquare is [batch, …] -> [batch].
func meanSquare(x *graph.Node) *graph.Node {
	batch := x.Shape().Dimensions[0]
	return graph.ReduceMean(graph.Reshape(graph.Square(x), batch, x.Shape().Size()/batch), -1)
}

// AttentionMap says where a network looks: the mean of the squared activations over the channels, as a vector of length 1. Zagoruyko and Komodakis 2017, arXiv:1612.03928, F²_sum of
// section 3.1, normalised as in equation 2. [batch, spatial…, channels] -> [batch, positions]
func AttentionMap(x *graph.Node) *graph.Node {
	batch := x.Shape().Dimensions[0]
	q := graph.ReduceMean(graph.Square(x), -1) // [batch, spatial…]
	q = graph.Reshape(q, batch, q.Shape().Size()/batch)
	norm := graph.Sqrt(graph.AddScalar(graph.ReduceAndKeep(graph.Square(q), graph.ReduceSum, -1), tiny))
	return graph.Div(q, norm)
}

// tiny keeps roots and quotients of zero finite, and their gradients: of features that are all the same, or all zero.
const tiny = 1e-12

// AttentionLoss is the mean of the squared differences between two maps of AttentionMap. That is what the authors' code computes; equation 2 of the paper has the norm of the
// difference. [batch, positions] each -> [batch]
func AttentionLoss(student, teacher *graph.Node) *graph.Node {
	return meanSquare(graph.Sub(student, teacher))
}

// DistanceLoss compares how far the examples of a batch lie from each other in both networks, in units of the mean distance: the mean over all ordered pairs, those of an example
// with itself among them, of the Huber loss of the difference. Park et al. 2019, arXiv:1904.05068, equations 5 to 7, as in the authors' code. The features may have
// different lengths. [batch, features] each -> scalar
func DistanceLoss(student, teacher *graph.Node) *graph.Node {
	return graph.ReduceAllMean(huber(graph.Sub(distances(student), distances(teacher))))
}

// distances returns ‖xᵢ − xⱼ‖ over their mean, that of pairs of different examples. [batch, features] -> [batch, batch]
func distances(x *graph.Node) *graph.Node {
	batch := x.Shape().Dimensions[0]
	difference := graph.Sub(graph.InsertAxes(x, 1), graph.InsertAxes(x, 0)) // [batch, batch, features]
	d := graph.ReduceSum(graph.Square(difference), -1)                      // [batch, batch]
	d = root(d)
	mean := graph.DivScalar(graph.ReduceAllSum(d), float64(max(1, batch*(batch-1))))
	return graph.Div(d, graph.AddScalar(mean, tiny))
}

// root is the square root, with gradient 0 at 0.
func root(x *graph.Node) *graph.Node {
	zero := graph.LessOrEqual(x, graph.ScalarZero(x.Graph(), x.DType()))
	return graph.Where(zero, graph.ZerosLike(x), graph.Sqrt(graph.Where(zero, graph.OnesLike(x), x)))
}

// AngleLoss compares the angles that any three examples of a batch make in both networks: the mean over all ordered triples of the Huber loss of the difference of their cosines. Park et
// al. 2019, arXiv:1904.05068, equations 8 to 10, as in the authors' code. It takes memory for batch³ numbers. The features may have different lengths.
// [batch, features] each -> scalar
func AngleLoss(student, teacher *graph.Node) *graph.Node {
	return graph.ReduceAllMean(huber(graph.Sub(cosines(student), cosines(teacher))))
}

// cosines returns the cosines of the angles at example i between j and k; 0 where two of the three are the same. [batch, features] -> [batch, batch, batch]
func cosines(x *graph.Node) *graph.Node {
	e := graph.Sub(graph.InsertAxes(x, 0), graph.InsertAxes(x, 1)) // [i, j, features]: xⱼ − xᵢ
	norm := root(graph.ReduceAndKeep(graph.Square(e), graph.ReduceSum, -1))
	e = graph.Div(e, graph.Where(graph.Equal(norm, graph.ZerosLike(norm)), graph.OnesLike(norm), norm)) // the zero vector stays
	return graph.Einsum("ijf,ikf->ijk", e, e)
}

// huber is x²/2 up to 1 and |x| − ½ beyond.
func huber(x *graph.Node) *graph.Node {
	size := graph.Abs(x)
	near := graph.LessThan(size, graph.ScalarOne(x.Graph(), x.DType()))
	return graph.Where(near, graph.MulScalar(graph.Square(x), 0.5), graph.AddScalar(size, -0.5))
}

// scalar is the mean of a loss in whatever form it comes.
func scalar(l *graph.Node) *graph.Node {
	if l.Rank() > 0 {
		l = graph.ReduceAllMean(l)
	}
	return l
}
