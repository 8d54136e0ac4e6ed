package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

const answerAtMost = 5 * time.Second

// get asks for the same again and again, on a new connection each time.
func get(ctx context.Context, w io.Writer, args []string) error {
	if err := required(args, "the URL"); err != nil {
		return err
	}
	times, err := optional(args, 1, 1, strconv.Atoi)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: answerAtMost}
	for range times {
		started := time.Now()
		if err := getOnce(ctx, w, client, args[0]); err != nil {
			return fmt.Errorf("after %v: %w", time.Since(started).Round(time.Millisecond), err)
		}
	}
	return nil
}

func getOnce(ctx context.Context, w io.Writer, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", url, response.Status)
	}
	_, err = io.Copy(w, response.Body)
	return err
}
