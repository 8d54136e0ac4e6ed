package client

import (
	"context"

	"connectrpc.com/connect"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// pages collects all pages of a list. fetch returns one page and the token of the next.
func pages[T any](fetch func(token string) ([]T, string, error)) ([]T, error) {
	var all []T
	for token := ""; ; {
		page, next, err := fetch(token)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if next == "" {
			return all, nil
		}
		token = next
	}
}

// ListServices returns all services.
func (c *Client) ListServices(ctx context.Context) ([]*warrenv1.ServiceEntry, error) {
	return pages(func(token string) ([]*warrenv1.ServiceEntry, string, error) {
		res, err := c.Services.ListServices(ctx, connect.NewRequest(&warrenv1.ListServicesRequest{PageToken: token}))
		if err != nil {
			return nil, "", err
		}
		return res.Msg.GetServices(), res.Msg.GetNextPageToken(), nil
	})
}

// ListNodes returns all nodes.
func (c *Client) ListNodes(ctx context.Context) ([]*warrenv1.NodeEntry, error) {
	return pages(func(token string) ([]*warrenv1.NodeEntry, string, error) {
		res, err := c.Nodes.ListNodes(ctx, connect.NewRequest(&warrenv1.ListNodesRequest{PageToken: token}))
		if err != nil {
			return nil, "", err
		}
		return res.Msg.GetNodes(), res.Msg.GetNextPageToken(), nil
	})
}

// ListNetworks returns all networks.
func (c *Client) ListNetworks(ctx context.Context) ([]*warrenv1.NetworkEntry, error) {
	return pages(func(token string) ([]*warrenv1.NetworkEntry, string, error) {
		res, err := c.Networks.ListNetworks(ctx, connect.NewRequest(&warrenv1.ListNetworksRequest{PageToken: token}))
		if err != nil {
			return nil, "", err
		}
		return res.Msg.GetNetworks(), res.Msg.GetNextPageToken(), nil
	})
}

// ListTasks returns all tasks of service (all services if empty) on node (all nodes if empty).
func (c *Client) ListTasks(ctx context.Context, service, node string, runningOnly bool) ([]*warrenv1.TaskEntry, error) {
	return pages(func(token string) ([]*warrenv1.TaskEntry, string, error) {
		res, err := c.Tasks.ListTasks(ctx, connect.NewRequest(&warrenv1.ListTasksRequest{
			Service: service, Node: node, RunningOnly: runningOnly, PageToken: token,
		}))
		if err != nil {
			return nil, "", err
		}
		return res.Msg.GetTasks(), res.Msg.GetNextPageToken(), nil
	})
}
