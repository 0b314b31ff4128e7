package kernelext

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOutputIsReplaced(t *testing.T) {
	k := newFakeKernel(t, true)
	s, out, errs := newScreen(k)
	o := newOutput(s)
	o.Update(forms{"text/plain": "first"})
	o.Update(forms{"text/plain": "second"})
	o.Show(forms{"text/plain": "last", "image/png": []byte{1}})
	o.Note("not here")
	displays, events := k.received()
	var got []string
	ids := map[string]bool{}
	for _, d := range displays {
		got = append(got, d.Data["text/plain"].(string))
		ids[d.DisplayID] = true
	}
	if diff := cmp.Diff([]string{"first", "second", "last"}, got); diff != "" {
		t.Errorf("contents (-want +got):\n%s", diff)
	}
	if len(ids) != 1 || ids[""] {
		t.Errorf("they go to the outputs %v, want one with a name", ids)
	}
	// The first says where the place is, and the last must not be lost; what is between is on its way to be replaced.
	if diff := cmp.Diff([]string{"sync", "display", "sync", "display", "sync", "display", "sync"}, events); diff != "" {
		t.Errorf("what the kernel saw (-want +got):\n%s", diff)
	}
	if out.Len()+errs.Len() > 0 {
		t.Errorf("printed %q and %q, want nothing", out, errs)
	}
}

func TestOutputOutsideANotebook(t *testing.T) {
	s, out, errs := newScreen(nil)
	o := newOutput(s)
	if o.InNotebook() {
		t.Error("a terminal is taken for a notebook")
	}
	o.Update("going on")
	o.Note("10 of 100")
	o.Show("done")
	if out.String() != "done\n" || errs.String() != "10 of 100\n" {
		t.Errorf("printed %q and, on standard error, %q", out, errs)
	}
}
