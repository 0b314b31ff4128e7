package prune

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/espalier-ml/espalier/pkg/internal/guard"
	"github.com/espalier-ml/espalier/pkg/internal/scoring"
)

// Code identifies what the functions of the recipe compute on these parameters, where String only names them: those of the criterion by the graphs that they build, those of
// normalisations and of the budget by what they answer to a few questions. Runs that are kept are told apart by it, so that a criterion that was written anew under its old name is not taken for the old one.
// Nothing is changed.
func (p *Pruner) Code() (string, error) {
	scores, err := p.newScorer().Code()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintln(h, scores)
	for i, param := range p.set {
		n := p.recipe.Criterion.Normalize.Then(p.recipe.Normalize)
		if n.Apply == nil {
			break
		}
		random := scoring.Random(0, "code", 0, param.Path)
		probe := make([]float32, p.units[i])
		for u := range probe {
			probe[u] = random.Float32()
		}
		err := guard.Run("normalize by "+n.Name, func() error {
			n.Apply(probe, param, random)
			return nil
		})
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, probe)
	}
	for _, sparsity := range []float64{0, 0.5, 0.9} {
		groups, err := p.recipe.Budget.Divide(p.set, p.units, sparsity)
		fmt.Fprintln(h, groups, err) // what it refuses is a part of it
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
