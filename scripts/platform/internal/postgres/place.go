package postgres

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"netlify-supabase-kv/scripts/platform/internal/layout"
	"netlify-supabase-kv/scripts/platform/internal/proc"
)

// awayPrefix begins the name of every folder outside the checkout. [Remove] removes no other.
const awayPrefix = "netlify-supabase-kv-"

// away returns the folder of a platform outside the checkout. Its name depends on the platform's path.
func away(home string) string {
	sum := sha256.Sum256([]byte(home))
	return filepath.Join("/var/tmp", awayPrefix+hex.EncodeToString(sum[:6]))
}

// user is the user that Postgres runs as when root starts it, since it refuses to run as root.
type user struct{ uid, gid uint32 }

// fallbackID is used on systems without the user nobody. A number needs no entry in /etc/passwd.
const fallbackID = 65534

func runAs() *user {
	if os.Geteuid() != 0 {
		return nil
	}
	u := &user{fallbackID, fallbackID}
	if nobody, err := osuser.Lookup("nobody"); err == nil {
		uid, err1 := strconv.ParseUint(nobody.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(nobody.Gid, 10, 32)
		if err1 == nil && err2 == nil && uid != 0 {
			u = &user{uint32(uid), uint32(gid)}
		}
	}
	return u
}

func (u *user) run(cmd *exec.Cmd) {
	if u != nil {
		proc.RunAs(cmd, u.uid, u.gid)
	}
}

func (u *user) own(name string) error {
	if u == nil {
		return nil
	}
	return os.Lchown(name, int(u.uid), int(u.gid))
}

// mayEnter reports whether the user can enter a folder.
func (u *user) mayEnter(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch mode := info.Mode().Perm(); {
	case !ok:
		return false
	case st.Uid == u.uid:
		return mode&0o100 != 0
	case st.Gid == u.gid:
		return mode&0o010 != 0
	default:
		return mode&0o001 != 0
	}
}

// reaches reports whether the user can enter dir and every folder above it.
func (u *user) reaches(dir string) bool {
	for at := dir; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err != nil || !u.mayEnter(info) {
			return false
		}
		if at == filepath.Dir(at) {
			return true
		}
	}
}

// canRun reports whether the user can run the programs. It tries, since file modes, mounts and access lists all
// matter.
func (u *user) canRun(programs string) bool {
	cmd := exec.Command(filepath.Join(programs, "bin", "postgres"), "--version")
	cmd.Dir = "/"
	u.run(cmd)
	if err := proc.Start(cmd); err != nil {
		return false
	}
	return cmd.Wait() == nil
}

// settle chooses the folders of programs and data.
//
// When root starts the platform, Postgres runs as nobody, who cannot enter a checkout under /root. Then programs and
// data are in a folder under /var/tmp, which survives a reboot, and home/postgres is a symbolic link to it.
func (c *Cluster) settle(home layout.Home) error {
	c.user = runAs()
	place := home.Postgres()
	if c.user != nil && (!c.user.reaches(home.Dir) || !c.user.canRun(c.programs)) {
		away, err := c.moveAway(home)
		if err != nil {
			return err
		}
		place = away
	} else if err := makePlace(place, c.user); err != nil {
		return err
	}
	c.data = filepath.Join(place, "data")
	return nil
}

func makePlace(place string, u *user) error {
	if info, err := os.Lstat(place); err == nil && info.Mode()&os.ModeSymlink != 0 {
		// The user could not reach the checkout before, and can now. The data stays where it is.
		if _, err := os.Stat(place); err == nil {
			return nil
		}
		if err := os.Remove(place); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(place, 0o700); err != nil {
		return err
	}
	return u.own(place)
}

// moveAway creates the folder under /var/tmp and copies the programs there.
func (c *Cluster) moveAway(home layout.Home) (string, error) {
	place := away(home.Dir)
	if err := os.Mkdir(place, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	// Anyone may create files in /var/tmp, so check that this is a folder, and ours.
	info, err := os.Lstat(place)
	if err != nil {
		return "", err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || (st.Uid != 0 && st.Uid != c.user.uid) {
		return "", fmt.Errorf("%s exists and belongs to another user", place)
	}
	if err := errors.Join(os.Chmod(place, 0o700), c.user.own(place)); err != nil {
		return "", err
	}
	programs := filepath.Join(place, "programs-"+c.major)
	if err := c.copyPrograms(programs); err != nil {
		return "", fmt.Errorf("copy Postgres to %s: %w", programs, err)
	}
	c.programs = programs
	return place, point(home.Postgres(), place)
}

// copyPrograms copies the programs once. An interrupted copy is started anew.
func (c *Cluster) copyPrograms(to string) error {
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	fresh := to + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if err := copyTree(c.programs, fresh); err != nil {
		return err
	}
	return os.Rename(fresh, to)
}

// copyTree copies files and links, and makes them readable for all: the source may have a strict umask.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(name string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		switch {
		case entry.IsDir():
			return errors.Join(os.MkdirAll(target, 0o755), os.Chmod(target, 0o755))
		case entry.Type()&os.ModeSymlink != 0:
			link, err := os.Readlink(name)
			if err != nil {
				return err
			}
			return os.Symlink(link, target)
		default:
			return copyFile(name, target)
		}
	})
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	mode := 0o644 | info.Mode().Perm()&0o111
	if mode&0o100 != 0 {
		mode |= 0o111
	}
	if err := os.WriteFile(to, content, mode); err != nil {
		return err
	}
	return os.Chmod(to, mode)
}

// point makes link a symbolic link to place.
func point(link, place string) error {
	if have, err := os.Readlink(link); err == nil && have == place {
		return nil
	}
	if err := os.RemoveAll(link); err != nil {
		return err
	}
	return os.Symlink(place, link)
}
