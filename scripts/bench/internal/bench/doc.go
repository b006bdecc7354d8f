// Package bench measures the functions on a running platform, inside the invocation: it creates the handlers of the
// deployed binaries, sends them Netlify's events, and times their responses. Since machines are noisy, alternatives
// are measured in turns in one run, and the ratio counts.
package bench
