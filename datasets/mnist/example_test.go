package mnist_test

import (
	"fmt"
	"log"

	"github.com/espalier-ml/espalier/datasets/mnist"
)

func ExampleOpen() {
	data, err := mnist.Open(mnist.Config{Batch: 60, Seed: 1})
	if err != nil {
		log.Fatal(err)
	}
	for _, part := range []*mnist.Dataset{data.Train, data.Validation, data.Test} {
		fmt.Println(part)
		fmt.Println("  digest", part.Digest()[:16])
	}
	fmt.Println("the first ten of the test set:")
	for i := range 10 {
		fmt.Print(data.Test.Label(i), " ")
	}
	// Output:
	// mnist train: 55000 examples, 28x28x1, 10 classes, batch 60
	//   digest a2209939368286c2
	// mnist validation: 5000 examples, 28x28x1, 10 classes, batch 500
	//   digest d3cce790d24fba5c
	// mnist test: 10000 examples, 28x28x1, 10 classes, batch 500
	//   digest e8269bdcb10211e9
	// the first ten of the test set:
	// 7 2 1 0 4 1 4 9 5 9
}

func ExampleDataset_iter() {
	data, err := mnist.Open(mnist.Config{})
	if err != nil {
		log.Fatal(err)
	}
	sample := data.Train.Take(1000).WithBatch(60) // 16 whole batches in an epoch
	batches := 0
	for batch, err := range sample.Iter() {
		if err != nil {
			log.Fatal(err)
		}
		if batches++; batches == 1 {
			fmt.Println("inputs", batch.Inputs[0].Shape(), "labels", batch.Labels[0].Shape())
		}
		if err := batch.Finalize(); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(batches, "batches")
	// Output:
	// inputs (Float32)[60, 28, 28, 1] labels (Int32)[60, 1]
	// 16 batches
}
