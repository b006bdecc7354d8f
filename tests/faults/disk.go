package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/shirou/gopsutil/v4/process"
)

// The disk that is filled is a file system of 32 MB in memory, with a tablespace for two tables. The write-ahead log
// stays elsewhere, since Postgres ends when that disk is full, which is another fault.
const (
	diskSize  = "32m"
	diskName  = "faults_disk"
	diskFull  = "53100"
	diskProbe = "create table public.faults_probe tablespace " + diskName + " as select repeat('x', 2000) as x from generate_series(1, 1000)"
)

var onDisk = []string{"public.kv_store", "kv.log"}

// lacksDisk returns what is missing to mount a file system, which only root may do.
func lacksDisk() string {
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		return "root on Linux"
	}
	if _, err := exec.LookPath("mount"); err != nil {
		return "mount"
	}
	return ""
}

func fillDisk(ctx context.Context, p *platform, hold time.Duration, _ *rand.Rand) (err error) {
	dir, err := os.MkdirTemp("/var/tmp", "faults-disk-") // which the user of Postgres can enter
	if err != nil {
		return err
	}
	after := context.WithoutCancel(ctx)
	undo := func(f func() error) { err = errors.Join(err, f()) }
	defer undo(func() error { return os.Remove(dir) })
	if err := mount(ctx, dir); err != nil {
		return err
	}
	defer undo(func() error { return runProgram(after, "umount", dir) })
	if err := p.giveToPostgres(ctx, dir); err != nil {
		return err
	}
	conn, err := connect(ctx, p.superuser)
	if err != nil {
		return err
	}
	defer conn.Close(after)
	if _, err := conn.Exec(ctx, "create tablespace "+diskName+" location '"+dir+"'"); err != nil {
		return err
	}
	defer undo(func() error { _, err := conn.Exec(after, "drop tablespace "+diskName); return err })
	defer undo(func() error { return move(after, conn, "pg_default") })
	if err := move(ctx, conn, diskName); err != nil {
		return err
	}
	for _, table := range onDisk { // frees the space of old rows
		if _, err := conn.Exec(ctx, "vacuum full "+table); err != nil {
			return err
		}
	}
	ballast := filepath.Join(dir, "ballast")
	defer undo(func() error { return os.Remove(ballast) })
	if err := fill(ballast); err != nil {
		return err
	}
	if err := sleep(ctx, hold); err != nil {
		return err
	}
	var refused *pgconn.PgError
	if _, err := conn.Exec(ctx, diskProbe); !errors.As(err, &refused) || refused.Code != diskFull {
		return fmt.Errorf("the disk is not full for Postgres: %v", err)
	}
	return nil
}

// mount mounts a small file system at dir. In many containers not even root may do that.
func mount(ctx context.Context, dir string) error {
	return runProgram(ctx, "mount", "-t", "tmpfs", "-o", "mode=0700,size="+diskSize, "tmpfs", dir)
}

func runProgram(ctx context.Context, name string, args ...string) error {
	if text, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, text)
	}
	return nil
}

// giveToPostgres makes the user of Postgres the owner of dir.
func (p *platform) giveToPostgres(ctx context.Context, dir string) error {
	pid, err := p.running(ctx, "postgres", 0)
	if err != nil {
		return err
	}
	server, err := process.NewProcess(int32(pid))
	if err != nil {
		return err
	}
	users, err := server.Uids()
	if err != nil {
		return err
	}
	return os.Chown(dir, int(users[0]), -1)
}

func move(ctx context.Context, conn *pgx.Conn, tablespace string) error {
	for _, table := range onDisk {
		if _, err := conn.Exec(ctx, "alter table "+table+" set tablespace "+tablespace); err != nil {
			return fmt.Errorf("move %s: %w", table, err)
		}
	}
	return nil
}

// fill writes to the file until its disk is full.
func fill(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for block := make([]byte, 4096); ; {
		_, err := f.Write(block)
		switch {
		case errors.Is(err, syscall.ENOSPC):
			return nil
		case err != nil:
			return err
		}
	}
}
