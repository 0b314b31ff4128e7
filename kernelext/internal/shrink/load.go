package main

import (
	"bufio"
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// busy is from which share of all processors on what others do spoils a comparison of times. It is a rule of thumb.
const busy = 0.1

// work is how much time the processors have worked until a moment, for this program and for others.
type work struct {
	at         time.Time
	others     time.Duration
	measurable bool // whether the system tells
}

// workSoFar reads what the system has counted.
func workSoFar() work {
	w := work{at: time.Now()}
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return w // not Linux
	}
	all, ok := parseStat(text)
	var own syscall.Rusage
	if !ok || syscall.Getrusage(syscall.RUSAGE_SELF, &own) != nil {
		return w
	}
	w.others, w.measurable = all-time.Duration(own.Utime.Nano()+own.Stime.Nano()), true
	return w
}

// parseStat returns the time that all processors have worked, of the first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq and steal, in hundredths of a second.
func parseStat(text []byte) (time.Duration, bool) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	if !lines.Scan() {
		return 0, false
	}
	fields := strings.Fields(lines.Text())
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, false
	}
	var sum int64
	for i, field := range fields[1:9] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, false
		}
		if idle := i == 3 || i == 4; !idle {
			sum += n
		}
	}
	return time.Duration(sum) * (time.Second / 100), true
}

// share is how many processors others have kept busy since; 0 where the system does not tell.
func (w work) share(since work) float64 {
	passed := w.at.Sub(since.at)
	if !w.measurable || !since.measurable || passed <= 0 {
		return 0
	}
	return max(0, float64(w.others-since.others)/float64(passed))
}
