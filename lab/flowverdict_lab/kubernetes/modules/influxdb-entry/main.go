// influxdb-entry starts InfluxDB and sets it up on its first start, as the entry point of the official
// image does with the same variables (DOCKER_INFLUXDB_INIT_MODE=setup and the others).
package main

import (
	"bytes"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const (
	folder = "/var/lib/influxdb2"
	url    = "http://127.0.0.1:8086/api/v2/setup"
)

// value is a variable, or the content of the file that the variable with _FILE after it names.
func value(name string) string {
	name = "DOCKER_INFLUXDB_INIT_" + name
	if file := os.Getenv(name + "_FILE"); file != "" {
		content, err := os.ReadFile(file)
		if err != nil {
			log.Fatal(err)
		}
		return strings.TrimSpace(string(content))
	}
	return os.Getenv(name)
}

// setUp waits until InfluxDB answers, and sets it up unless that was done before.
func setUp() {
	for ; ; time.Sleep(200 * time.Millisecond) {
		answer, err := http.Get(url)
		if err != nil {
			continue
		}
		var state struct{ Allowed bool }
		err = json.NewDecoder(answer.Body).Decode(&state)
		answer.Body.Close()
		if err == nil && !state.Allowed {
			return
		}
		if err == nil {
			break
		}
	}
	keep, err := time.ParseDuration(strings.Replace(value("RETENTION"), "30d", "720h", 1))
	if err != nil {
		log.Fatal(err)
	}
	body, _ := json.Marshal(map[string]any{
		"username": value("USERNAME"), "password": value("PASSWORD"), "org": value("ORG"),
		"bucket": value("BUCKET"), "token": value("ADMIN_TOKEN"),
		"retentionPeriodSeconds": int(keep.Seconds()),
	})
	answer, err := http.Post(url, "application/json", bytes.NewReader(body))
	if err != nil || answer.StatusCode != http.StatusCreated {
		log.Fatal("set-up failed: ", err)
	}
}

func main() {
	server := exec.Command("/usr/bin/influxd", "--bolt-path", folder+"/influxd.bolt",
		"--sqlite-path", folder+"/influxd.sqlite", "--engine-path", folder+"/engine")
	server.Stdout, server.Stderr = os.Stdout, os.Stderr
	if err := server.Start(); err != nil {
		log.Fatal(err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() { server.Process.Signal(<-signals) }()
	if value("MODE") == "setup" {
		go setUp()
	}
	server.Wait()
	os.Exit(server.ProcessState.ExitCode())
}
