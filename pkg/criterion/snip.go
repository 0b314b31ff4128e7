package criterion

// SNIP is |w·∂L/∂w| of an untrained network: how much the loss feels the connection. Lee et al. 2019, arXiv:1810.02340, equation 6. The paper divides
// by the sum over all weights, which changes no ranking. Gradients are averaged over the calibration data before the magnitude is taken, as in
// the authors' code.
var SNIP = Criterion{Name: "SNIP", Cite: "Lee et al. 2019, arXiv:1810.02340", Needs: NeedGrad, Pool: L1, Score: weightTimesGrad}
