package testrun

import (
	"context"

	"github.com/espalier-ml/espalier/kernelext/internal/setup"
)

func Run(ctx context.Context, p setup.Paths, args []string) error { return nil }
