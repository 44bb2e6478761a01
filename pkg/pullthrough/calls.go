// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package pullthrough

import (
	"context"
	"sync"
)

// calls has callers with one key share one call. It goes on when they leave, and
// ends with the engine.
type calls[T any] struct {
	tasks *tasks

	mu      sync.Mutex
	running map[string]*call[T]
}

type call[T any] struct {
	done  chan struct{}
	value T
	err   error
}

func newCalls[T any](tasks *tasks) *calls[T] {
	return &calls[T]{tasks: tasks, running: make(map[string]*call[T])}
}

// do returns what the running call with the key returns, or what work does.
func (c *calls[T]) do(ctx context.Context, key string, work func(context.Context) (T, error)) (T, error) {
	running, _ := c.begin(key, work)
	return running.wait(ctx)
}

// wait returns what the call does, unless ctx ends before.
func (c *call[T]) wait(ctx context.Context) (T, error) {
	select {
	case <-c.done:
		return c.value, c.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// begin returns the call with the key, and whether there was one already.
func (c *calls[T]) begin(key string, work func(context.Context) (T, error)) (running *call[T], shared bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if running, ok := c.running[key]; ok {
		return running, true
	}
	running = &call[T]{done: make(chan struct{})}
	started := c.tasks.start(func(ctx context.Context) {
		running.value, running.err = work(ctx)
		c.mu.Lock()
		delete(c.running, key)
		c.mu.Unlock()
		close(running.done)
	})
	if !started {
		running.err = errClosed
		close(running.done)
		return running, false
	}
	c.running[key] = running
	return running, false
}

// tasks are the goroutines of an engine. They end before close returns.
type tasks struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex
	closed bool
	group  sync.WaitGroup
}

func newTasks() *tasks {
	ctx, cancel := context.WithCancel(context.Background())
	return &tasks{ctx: ctx, cancel: cancel}
}

// start runs work in a goroutine, unless the tasks are closed.
func (t *tasks) start(work func(ctx context.Context)) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.group.Go(func() { work(t.ctx) })
	return true
}

func (t *tasks) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	t.group.Wait()
}
