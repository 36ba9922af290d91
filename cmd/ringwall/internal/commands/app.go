package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/service"
)

// DefaultConfig is the file that --config stands for.
const DefaultConfig = "/etc/ringwall/ringwall.yaml"

// App is the program: what its commands need from outside.
type App struct {
	Run           func(context.Context, RunOptions) error  // the daemon
	Demo          func(context.Context, DemoOptions) error // the built-in attack
	Env           config.Environment
	ServiceConfig string                        // the file that the service reads
	Service       func() (*service.User, error) // who the daemon runs as, where this is root; nil: nobody in particular
	Build         Build
	// StopService ends the service, where systemd runs one, and starts it no more; nil: there is none.
	StopService func(context.Context) error
	// ReloadManager has Asterisk read manager.conf again; nil: there is none.
	ReloadManager func(context.Context) error
	// Ask puts a question that yes answers; nil: there is no terminal.
	Ask func(ctx context.Context, question string) bool

	Out     io.Writer // results
	Err     io.Writer // errors and advice
	Journal bool      // Err is systemd's journal, which wants the priority before a line
	Columns int       // of the terminal at Out; 0 where it is none
	Now     func() time.Time
	Lookup  func(context.Context, string) ([]netip.Addr, error) // of host names; nil: as the system does
	Zone    *time.Location                                      // of the times in tables
}

// RunOptions are the flags of run.
type RunOptions struct {
	ConfigPath string
	Socket     string // instead of control.socket, unless empty
}

// DemoOptions are the flags of demo, and where it may write.
type DemoOptions struct {
	For     time.Duration
	JSON    bool // decision lines instead of a live table
	Out     io.Writer
	Columns int // of the terminal at Out; 0 where it is none
}

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// Execute runs one command line, without the program's name, and returns the exit code. It writes errors to Err.
func (a *App) Execute(ctx context.Context, args []string) int {
	out := &stickyErrorWriter{w: a.Out}
	c := &commands{App: a, out: out}
	root := c.rootCommand()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(a.Err)
	err := root.ExecuteContext(ctx)
	if err == nil && out.err != nil {
		err = fmt.Errorf("the result cannot be written: %w", out.err)
	}
	if err == nil {
		return exitDone
	}
	if a.Journal {
		printJournalError(a.Err, err)
	} else {
		printError(a.Err, err)
	}
	var usage *usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}

// stickyErrorWriter keeps the first error of its writes, so that no command must check each line.
type stickyErrorWriter struct {
	w   io.Writer
	err error
}

func (s *stickyErrorWriter) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err != nil && s.err == nil {
		s.err = err
	}
	return n, err
}

// commands is one command line under way, with the flags that all commands have.
type commands struct {
	*App
	out    io.Writer // results, of which Execute reports the first error
	config string
	socket string
	json   bool
}

const intro = `Ringwall keeps attackers away from Asterisk, and can say why.

To begin:
  ringwall demo            watch an attack being banned; changes nothing here
  ringwall setup           let it in at Asterisk; says first what it writes
  ringwall check           is the configuration right?
  ringwall doctor          does it work, from Asterisk to the kernel?
  systemctl start ringwall (or, without systemd: ringwall run)
Every day:
  ringwall status          is everything well?
  ringwall list bans       who is kept out?
  ringwall why ADDRESS     what happened with it, and what would change it?
  ringwall unban ADDRESS   let it in again
  ringwall page            the same in a browser, live
`

func (c *commands) rootCommand() *cobra.Command {
	var version bool
	root := &cobra.Command{
		Use:   "ringwall",
		Short: "Keeps attackers away from Asterisk, and can say why",
		Long:  intro,
		Args:  noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if version {
				return c.sayVersion()
			}
			_, err := io.WriteString(c.out, intro+"\nAll commands: ringwall --help. More: man ringwall, "+
				"/usr/share/doc/ringwall/README.md\n")
			return err
		},
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		CompletionOptions:          cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetFlagErrorFunc(flagError)
	root.Flags().BoolVar(&version, "version", false, "print the version")
	flags := root.PersistentFlags()
	flags.StringVar(&c.config, "config", DefaultConfig, "configuration `FILE`")
	flags.StringVar(&c.socket, "socket", "", "control socket `PATH` (default: control.socket of the configuration)")
	flags.BoolVar(&c.json, "json", false, "write JSON: one object, or one object a line for lists")
	root.AddCommand(
		c.runCommand(), c.demoCommand(), c.checkCommand(), c.doctorCommand(), c.statusCommand(), c.listCommand(),
		c.banCommand(), c.unbanCommand(), c.allowCommand(), c.whyCommand(),
		c.historyCommand(), c.listsCommand(), c.pageCommand(), c.replayCommand(), c.importCommand(), c.setupCommand(),
		c.panicCommand(),
		c.hubCommand(), c.fleetCommand(), c.versionCommand(), c.completionCommand(),
	)
	return root
}

// serviceEnvironment returns the environment in which the daemon would read the configuration, and the daemon's user
// where that is not the caller: what root can read does not show what that user can. A file other than the service's
// is a draft, which only its writer need read: for that it is the caller's own environment.
func (c *commands) serviceEnvironment() (config.Environment, *service.User, error) {
	if c.Service == nil || filepath.Clean(c.config) != c.ServiceConfig {
		return c.Env, nil, nil
	}
	u, err := c.Service()
	if err != nil || u == nil {
		return c.Env, nil, err
	}
	return c.Env.As(u.Open), u, nil
}

// newClient makes a client of the daemon at the socket of the flag, else of the configuration if this user may read it,
// else at the default.
func (c *commands) newClient(cmd *cobra.Command) (*api.Client, error) {
	if c.socket != "" {
		return &api.Client{Socket: c.socket}, nil
	}
	env := c.Env
	env.WithoutSecrets = true
	config, _, err := config.Load(c.config, env)
	switch {
	case err == nil:
		return &api.Client{Socket: config.Control.Socket}, nil
	case cmd.Flags().Changed("config"):
		return nil, err
	}
	return &api.Client{}, nil
}
