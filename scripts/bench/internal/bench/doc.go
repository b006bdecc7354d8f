// Package bench measures the functions on a running platform, inside the invocation: it makes the handlers that the
// deployed binaries run, gives them the events that Netlify gives them, and times their answers. What is compared is
// measured in turns in one run, since machines are noisy; what counts is the ratio.
package bench
