"""Run one test of jupyter_kernel_test against a kernel. Arguments: kernel, test. The last line of standard output is pass, fail, skip or hang."""
import sys
import unittest

import jupyter_kernel_test


class KernelTests(jupyter_kernel_test.KernelTests):
    kernel_name = sys.argv[1]
    language_name = "go"
    file_extension = ".go"
    code_hello_world = 'import "fmt"\n\nfmt.Print("hello, world")'
    code_stderr = 'import ("fmt"; "os")\n\nfmt.Fprint(os.Stderr, "oops")'
    completion_samples = [{"text": 'import "fmt"\n\nfunc f() { fmt.Printl', "matches": {"Println"}}]
    complete_code_samples = ["%%\nx := 1\n_ = x", "x := 1", "func f() {}", "!ls", "%who"]
    incomplete_code_samples = ["func f() {", "x :=", "x := `text", "if a {\n\tf("]
    invalid_code_samples = ["x := )", "f(]", 'x := "text']
    code_page_something = "fmt.Println?"
    code_generate_error = "panic(\"no\")"
    code_execute_result = [
        {"code": "1 + 1", "result": "2"},
        {"code": "1 + 2", "result": "3"},
        {"code": 'import "strings"\n\nstrings.Repeat("ab", 2)', "result": '"abab"'},
    ]
    code_display_data = [
        {"code": 'import "github.com/espalier-ml/espalier/kernelext"\n\n%%\nkernelext.Show("a text")', "mime": "text/plain"},
        {"code": 'import ("image"; "github.com/espalier-ml/espalier/kernelext")\n\n%%\n'
                 "kernelext.Show(image.NewGray(image.Rect(0, 0, 2, 2)))", "mime": "image/png"},
    ]
    code_history_pattern = "1?+?2*"
    supported_history_operations = ("tail", "range", "search")
    code_inspect_sample = "fmt.Println"
    code_clear_output = ""


class WelcomeTests(jupyter_kernel_test.IopubWelcomeTests):
    kernel_name = sys.argv[1]
    support_iopub_welcome = True


KernelTests.__test__ = WelcomeTests.__test__ = True
test = sys.argv[2]
result = unittest.TestResult()
suite = unittest.TestSuite([(WelcomeTests if "welcome" in test else KernelTests)(test)])
suite.run(result)
for _, trace in result.failures + result.errors:
    print(trace.strip().splitlines()[-1])
if result.skipped:
    print("skip")
elif result.testsRun == 1 and result.wasSuccessful():
    print("pass")
else:
    print("fail")
