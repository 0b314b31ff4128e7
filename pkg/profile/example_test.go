package profile_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/profile"
	"github.com/espalier-ml/espalier/pkg/trace"
)

func ExampleOf() {
	b, err := backend.Open()
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := profile.Of(b, model.NewStore(), nets.VGG16, shapes.Make(dtypes.Float32, 1, 224, 224, 3))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%d parameters, %.1f MB, %.3f GMACs = %.2f GFLOPs\n", p.Params(), float64(p.Bytes())/1e6, float64(p.MACs())/1e9, float64(p.FLOPs())/1e9)
	// Output: 138357544 parameters, 553.4 MB, 15.470 GMACs = 30.94 GFLOPs
}

func ExampleProfile_Table() {
	b, err := backend.Open()
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := profile.Of(b, model.NewStore(), nets.LeNet5, shapes.Make(dtypes.Float32, 1, 28, 28, 1))
	if err != nil {
		fmt.Println(err)
		return
	}
	p.Table().Text(os.Stdout)
	// Output:
	// 431,080 parameters, 1.7 MB, 2.293 MMACs = 4.59 MFLOPs
	// layer   kind   output    parameters  not zero       MACs  MACs without zeros  size (MB)
	// ------  -----  --------  ----------  --------  ---------  ------------------  ---------
	// conv1   conv   24×24×20         520       520    288,000             288,000      0.002
	// conv2   conv   8×8×50        25,050    25,050  1,600,000           1,600,000      0.100
	// fc1     dense  500          400,500   400,500    400,000             400,000      1.602
	// output  dense  10             5,010     5,010      5,000               5,000      0.020
	// total                       431,080   431,080  2,293,000           2,293,000      1.724
	// MACs are multiply-accumulates for one input, without the additions of biases; FLOPs = 2 MACs. MB = 10⁶ bytes.
}

// What pruning is worth on this machine: both networks are timed in turn, and the interval says how sure the ratio is.
func ExampleCompareModels() {
	b, err := backend.Open()
	if err != nil {
		fmt.Println(err)
		return
	}
	images := []shapes.Shape{shapes.Make(dtypes.Float32, 1, 224, 224, 3)}
	c, err := profile.CompareModels(context.Background(), b, []profile.Candidate{
		{Name: "ResNet-34", Store: model.NewStore(), Model: trace.Single(nets.ResNet34), Inputs: images},
		{Name: "ResNet-18", Store: model.NewStore(), Model: trace.Single(nets.ResNet18), Inputs: images},
	}, profile.CompareConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	c.Table().Text(os.Stdout)
}

// Measured by layer and whole. A figure is drawn of the records, as `espalier profile --png` does.
func ExampleMeasure() {
	b, err := backend.Open()
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := profile.Measure(context.Background(), b, model.NewStore(), trace.Single(nets.MobileNetV2), profile.MeasureConfig{}, shapes.Make(dtypes.Float32, 1, 224, 224, 3))
	if err != nil {
		fmt.Println(err)
		return
	}
	p.Table().Text(os.Stdout)
	for _, r := range p.Records("MobileNetV2") {
		fmt.Println(r.Labels["layer"], r.Values["MACs"], r.Values["median seconds"])
	}
}

func BenchmarkOf(b *testing.B) {
	gomlx, err := backend.Open()
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"ResNet-50", "VGG16", "ViT-B/16"} {
		n, err := nets.Find(name)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := profile.Of(gomlx, model.NewStore(), n.Model, shapes.Make(dtypes.Float32, append([]int{1}, n.Input...)...)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
