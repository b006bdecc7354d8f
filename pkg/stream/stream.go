package stream

import (
	"context"
	"iter"
	"sync"

	"golang.org/x/sync/semaphore"
)

// MaxBytesAtOnce bounds the values that are held at a time.
const MaxBytesAtOnce = 32 << 20

// Cursor is a stream that is read beside others, of things that have keys.
type Cursor[T any] struct {
	next  func() (T, error, bool)
	stop  func()
	key   func(T) string
	now   T
	there bool
}

// NewCursor returns a cursor that is in front of the stream. Stop it.
func NewCursor[T any](seq iter.Seq2[T, error], key func(T) string) *Cursor[T] {
	c := &Cursor[T]{key: key}
	c.next, c.stop = iter.Pull2(seq)
	return c
}

// Advance goes to the next.
func (c *Cursor[T]) Advance() (err error) {
	c.now, err, c.there = c.next()
	return err
}

// UpTo goes on until the stream has the key, or is behind it.
func (c *Cursor[T]) UpTo(key string) error {
	for c.there && c.key(c.now) < key {
		if err := c.Advance(); err != nil {
			return err
		}
	}
	return nil
}

// Key is that of what the stream is at; false at its end.
func (c *Cursor[T]) Key() (string, bool) {
	if !c.there {
		return "", false
	}
	return c.key(c.now), true
}

// Stop ends the reading.
func (c *Cursor[T]) Stop() { c.stop() }

// At takes what the stream has for the key, if it is that now.
func (c *Cursor[T]) At(key string) (T, bool) {
	return c.now, c.there && c.key(c.now) == key
}

// None is a stream without anything.
func None[T any](func(T, error) bool) {}

// Pages asks for one page after the other, each in advance. A page with fewer than limit is the last.
func Pages[T any](ctx context.Context, limit int, key func(T) string, get func(ctx context.Context, after string) ([]T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		type page struct {
			all []T
			err error
		}
		ctx, cancel := context.WithCancel(ctx)
		ahead := make(chan page)
		go func() {
			defer close(ahead)
			for after := ""; ; {
				all, err := get(ctx, after)
				select {
				case ahead <- page{all, err}:
				case <-ctx.Done():
					return
				}
				if err != nil || len(all) < limit {
					return
				}
				after = key(all[len(all)-1])
			}
		}()
		defer func() {
			cancel()
			for range ahead { // until it has ended
			}
		}()
		for p := range ahead {
			if p.err != nil {
				var none T
				yield(none, p.err)
				return
			}
			for _, one := range p.all {
				if !yield(one, nil) {
					return
				}
			}
		}
	}
}

// Ordered does something with each of a stream, some at a time, and gives the results in the order of the stream. weigh bounds what is
// held at a time by [MaxBytesAtOnce].
func Ordered[T, R any](ctx context.Context, parallel int, in iter.Seq2[T, error], weigh func(T) int64, do func(context.Context, T) R) iter.Seq2[R, error] {
	type slot struct {
		done   chan R
		weight int64
		err    error
	}
	return func(yield func(R, error) bool) {
		var none R
		outer := ctx
		ctx, cancel := context.WithCancel(ctx)
		var workers sync.WaitGroup
		defer workers.Wait()
		defer cancel()
		memory, queue := semaphore.NewWeighted(MaxBytesAtOnce), make(chan slot, 4*parallel)
		workers.Go(func() {
			defer close(queue)
			running := make(chan struct{}, parallel)
			for item, err := range in {
				s := slot{done: make(chan R, 1), err: err}
				if err == nil {
					s.weight = min(weigh(item), MaxBytesAtOnce)
					if memory.Acquire(ctx, s.weight) != nil {
						return
					}
				}
				select {
				case queue <- s:
				case <-ctx.Done():
					return
				}
				if err != nil {
					return
				}
				select {
				case running <- struct{}{}:
				case <-ctx.Done():
					return
				}
				workers.Go(func() {
					s.done <- do(ctx, item)
					<-running
				})
			}
		})
		for s := range queue {
			if s.err != nil {
				yield(none, s.err)
				return
			}
			select {
			case r := <-s.done:
				if outer.Err() != nil {
					yield(none, outer.Err())
					return
				}
				goOn := yield(r, nil)
				memory.Release(s.weight)
				if !goOn {
					return
				}
			case <-ctx.Done():
				yield(none, ctx.Err())
				return
			}
		}
		if outer.Err() != nil {
			yield(none, outer.Err())
		}
	}
}

// Of is a slice as a stream.
func Of[T any](values []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, value := range values {
			if !yield(value, nil) {
				return
			}
		}
	}
}
