//go:build race

package cifar10

// raceDetector is 1 where it is built in.
const raceDetector = 1
