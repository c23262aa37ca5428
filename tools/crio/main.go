// Command cri-pull asks a container runtime for an image, as the kubelet does, and prints what the runtime calls it.
//
//	cri-pull SOCKET IMAGE < LOGIN
//
// LOGIN is the CRI's AuthConfig as JSON: {"username": …, "password": …}.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
	remote "k8s.io/cri-client/pkg"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: cri-pull SOCKET IMAGE < LOGIN")
		os.Exit(2)
	}
	pulled, err := pull(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "cri-pull:", err)
		os.Exit(1)
	}
	fmt.Println(pulled)
}

func pull(socket, image string) (string, error) {
	var login runtime.AuthConfig
	if err := json.NewDecoder(os.Stdin).Decode(&login); err != nil {
		return "", fmt.Errorf("read the login: %w", err)
	}
	images, err := remote.NewRemoteImageService("unix://"+socket, time.Minute, nil, nil)
	if err != nil {
		return "", err
	}
	return images.PullImage(context.Background(), &runtime.ImageSpec{Image: image}, &login, nil)
}
