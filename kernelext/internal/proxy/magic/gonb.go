package magic

// gonbs are GoNB's own commands (v0.11.4). Those that we have too are ours.
var gonbs = []Magic{
	{Name: "%", Usage: "[ARGUMENTS]", Short: "what follows is the body of main; its program gets the arguments"},
	{Name: "main", Usage: "[ARGUMENTS]", Short: "the same as %%"},
	{Name: "args", Usage: "ARGUMENTS", Short: "the arguments of the cell's program"},
	{Name: "exec", Usage: "FUNCTION [ARGUMENTS]", Short: "calls a function of no parameters as the cell's program"},
	{Name: "test", Usage: "[FLAGS]", Short: "runs the cell's tests and benchmarks"},
	{Name: "wasm", Short: "compiles the cell to WebAssembly, to run in the browser"},
	{Name: "capture", Usage: "[-a] FILE", Short: "also writes the cell's output to a file; -a appends"},
	{Name: "env", Usage: "NAME VALUE", Short: "sets an environment variable for programs and shell commands"},
	{Name: "cd", Usage: "[DIRECTORY]", Short: "changes the directory in which programs and shell commands run, or says which it is"},
	{Name: "goflags", Usage: "[FLAGS]", Short: "sets flags for `go build`, or says which there are"},
	{Name: "autoget", Short: "has `go get` run before each build, which this kernel answers by doing nothing: the project pins what can be imported"},
	{Name: "noautoget", Short: "has it not run"},
	{Name: "list", Short: "lists what the notebook has declared"},
	{Name: "ls", Short: "the same as %list"},
	{Name: "remove", Usage: "NAME…", Short: "forgets declarations"},
	{Name: "rm", Usage: "NAME…", Short: "the same as %remove"},
	{Name: "with_inputs", Short: "lets the next shell command ask the reader"},
	{Name: "with_password", Short: "lets the next shell command ask the reader for a password"},
	{Name: "track", Usage: "[FILE]", Short: "has completion look at a file or directory too, or lists those it looks at"},
	{Name: "untrack", Usage: "FILE", Short: "has it not look there"},
	{Name: "goworkfix", Short: "writes what go.work uses into go.mod"},
	{Name: "widgets", Short: "connects GoNB's widgets"},
	{Name: "widgets_hb", Short: "tries the connection of GoNB's widgets"},
	{Name: "version", Short: "the version of GoNB"},
	{Name: "%writefile", Usage: "[-a] FILE", Short: "writes the cell to a file; must be the first line"},
	{Name: "%script", Usage: "COMMAND", Short: "runs a command with the cell as its input; must be the first line"},
	{Name: "%bash", Short: "runs the cell in bash; must be the first line"},
	{Name: "%sh", Short: "runs the cell in sh; must be the first line"},
	{Name: "%gx", Short: "compiles the cell as Gx; must be the first line"},
}

// IsGonbs says whether GoNB has a command.
func IsGonbs(name string) bool {
	_, ok := Find(gonbs, name)
	return ok
}
