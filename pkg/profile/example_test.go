package profile_test

import (
	"fmt"
	"os"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/ml/model"

	"github.com/espalier-ml/espalier/pkg/backend"
	"github.com/espalier-ml/espalier/pkg/nets"
	"github.com/espalier-ml/espalier/pkg/profile"
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
