package view

import (
	"encoding/json"
	"testing"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func TestChangesNameEachFieldThatDiffers(t *testing.T) {
	before := &warrenv1.ServiceSpec{
		Labels: map[string]string{"team": "shop", "com.example.old": "1"}, Mode: &warrenv1.ServiceSpec_Global{Global: &warrenv1.GlobalMode{}},
		Task: &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{Image: "app:1", Args: []string{"a"}}},
	}
	after := &warrenv1.ServiceSpec{
		Labels: map[string]string{"team": "shop"}, Mode: &warrenv1.ServiceSpec_Replicated{Replicated: &warrenv1.ReplicatedMode{Replicas: 2}},
		Task: &warrenv1.TaskSpec{Container: &warrenv1.ContainerSpec{Image: "app:2", Args: []string{"a", "b"}}, Limits: &warrenv1.Resources{NanoCpus: 5}},
	}
	changes, err := Changes(before, after)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(changes)
	if err != nil {
		t.Fatal(err)
	}
	const want = `[{"field":"global","before":{}},` +
		`{"field":"labels[\"com.example.old\"]","before":"1"},` +
		`{"field":"replicated.replicas","after":2},` +
		`{"field":"task.container.args","before":["a"],"after":["a","b"]},` +
		`{"field":"task.container.image","before":"app:1","after":"app:2"},` +
		`{"field":"task.limits.nanoCpus","after":"5"}]`
	if string(got) != want {
		t.Errorf("changes are\n%s, want\n%s", got, want)
	}
	if same, err := Changes(after, after); err != nil || len(same) != 0 || same == nil {
		t.Errorf("the changes of the same are %v, %v", same, err)
	}
}
