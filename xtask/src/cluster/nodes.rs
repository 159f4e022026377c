//! A node: containerd and a kubelet, in a network of its own.

use std::fs;

use anyhow::Result;

use super::parts::fill;
use super::processes::{Namespaces, until};
use super::start::{ADDRESS, BRIDGE, NODES, PODS};
use super::{Folders, control_groups, image, keys::Keys, postgres};

/// One node.
pub(crate) struct Node {
    pub(crate) name: String,
    /// Its address, and the network of its pods.
    number: usize,
}

impl Node {
    /// The nodes of the cluster.
    pub(crate) fn all() -> Vec<Node> {
        (1..=NODES).map(|number| Node { name: format!("node{number}"), number }).collect()
    }

    /// The address for the other nodes.
    pub(crate) fn address(&self) -> String {
        format!("{ADDRESS}.1{}", self.number)
    }

    /// The network of its pods.
    fn pods(&self) -> String {
        format!("{PODS}.{}.0/24", self.number)
    }

    /// Makes its namespaces, with a pair of veth devices to the bridge of the control plane.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn connect(&self, folders: &Folders, namespaces: &Namespaces) -> Result<()> {
        let folder = folders.run.join(&self.name);
        fs::create_dir_all(folder.join("cni"))?;
        let keeper = namespaces.new_node(&folder)?;
        let plane = namespaces.control_plane();
        let cable = format!("to-{}", self.name);
        let add = ["ip", "link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &keeper];
        namespaces.run(&plane, &add)?;
        namespaces.run(&plane, &["ip", "link", "set", &cable, "master", BRIDGE, "up"])?;
        namespaces.run(&plane, &["ip", "route", "add", &self.pods(), "via", &self.address()])?;
        let inside = namespaces.node(&self.name);
        let address = format!("{}/24", self.address());
        let gateway = format!("{ADDRESS}.1");
        for words in [
            &["ip", "address", "add", &address, "dev", "eth0"][..],
            &["ip", "link", "set", "eth0", "up"],
            &["ip", "route", "add", "default", "via", &gateway],
            &["sysctl", "-qw", "net.ipv4.ip_forward=1"],
        ] {
            namespaces.run(&inside, words)?;
        }
        Ok(())
    }

    /// Starts containerd, imports the images, and starts the kubelet and the service proxy.
    ///
    /// # Errors
    /// One of them does not start.
    pub(crate) fn start(
        &self,
        folders: &Folders,
        namespaces: &Namespaces,
        keys: &Keys<'_>,
        server: &str,
    ) -> Result<()> {
        let folder = folders.run.join(&self.name);
        let inside = namespaces.node(&self.name);
        let group = control_groups::make(&folders.run, &self.name)?;
        let path = |name: &str| folder.join(name).display().to_string();
        let (here, run) = (folder.display().to_string(), folders.run.display().to_string());
        let debian = folders.debian().display().to_string();
        let values = [
            ("FOLDER", &*here),
            ("RUN", &*run),
            ("DEBIAN", &*debian),
            ("PODS", &*self.pods()),
            ("CGROUP", &*group),
        ];
        for (name, to) in [
            ("containerd.toml", "containerd.toml"),
            ("pods.conflist", "cni/pods.conflist"),
            ("kubelet.yaml", "kubelet.yaml"),
        ] {
            fill(&folders.data(name)?, &values, &folder.join(to))?;
        }
        namespaces.start(
            &inside,
            &folder,
            "containerd",
            &["containerd", "--config", &path("containerd.toml")],
        )?;
        let socket = path("containerd.sock");
        until("containerd answers", || {
            namespaces.run(&inside, &["ctr", "--address", &socket, "version"]).is_ok()
        })?;
        let images = image::archives(&folders.run).into_iter().chain([postgres::archived(&folders.run)]);
        for (name, archive) in images {
            let archive = archive.display().to_string();
            let import = ["images", "import", "--base-name", name, &archive];
            let ctr = ["ctr", "--address", &socket, "--namespace", "k8s.io"];
            namespaces.run(&inside, &[&ctr[..], &import].concat())?;
        }
        let user = format!("system:node:{}", self.name);
        keys.kubeconfig(&format!("{}-kubelet", self.name), (&user, Some("system:nodes")), server)?;
        let of = |file: &str| folders.run.join(file).display().to_string();
        let kubelet = folders.program("kubelet").display().to_string();
        namespaces.start(
            &inside,
            &folder,
            "kubelet",
            &[
                &kubelet,
                "--config",
                &path("kubelet.yaml"),
                "--kubeconfig",
                &of(&format!("{}-kubelet.kubeconfig", self.name)),
                "--root-dir",
                &path("kubelet"),
                "--hostname-override",
                &self.name,
                "--node-ip",
                &self.address(),
            ],
        )?;
        let proxy = folders.program("kube-proxy").display().to_string();
        namespaces.start(
            &inside,
            &folder,
            "kube-proxy",
            &[
                &proxy,
                "--kubeconfig",
                &of("kube-proxy.kubeconfig"),
                "--proxy-mode=iptables",
                // Without the module br_netfilter, what a pod of the same bridge answers would pass the node by.
                "--masquerade-all",
                "--conntrack-max-per-core=0",
                "--hostname-override",
                &self.name,
            ],
        )
    }
}
