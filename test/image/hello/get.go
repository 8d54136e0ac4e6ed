package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"slices"
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
			return fmt.Errorf("after %dms: %w", time.Since(started).Milliseconds(), err)
		}
	}
	return nil
}

// getEach asks every address that the name in the URL stands for, and wants to be seen as who it is.
func getEach(ctx context.Context, w io.Writer, args []string) error {
	if err := required(args, "the URL"); err != nil {
		return err
	}
	asked, err := url.Parse(args[0])
	if err != nil {
		return err
	}
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", asked.Hostname())
	if err != nil {
		return err
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	var own string
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		own, _, _ = net.SplitHostPort(info.Conn.LocalAddr().String())
	}})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: answerAtMost}
	for _, address := range addresses {
		asked.Host = net.JoinHostPort(address.Unmap().String(), asked.Port())
		var answer bytes.Buffer
		if err := getOnce(ctx, &answer, client, asked.String()); err != nil {
			return err
		}
		fmt.Fprintf(w, "%s: %s", address.Unmap(), answer.Bytes())
		if !bytes.HasSuffix(answer.Bytes(), []byte("from="+own+"\n")) {
			return fmt.Errorf("%s does not see that it is asked from %s", address.Unmap(), own)
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
