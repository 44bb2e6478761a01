// SPDX-FileCopyrightText: SAP SE or an SAP affiliate company and Gardener contributors
//
// SPDX-License-Identifier: Apache-2.0

package registrycache_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/go-logr/logr"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/cert"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	extensionscontroller "github.com/gardener/gardener/extensions/pkg/controller"
	gardencorev1beta1 "github.com/gardener/gardener/pkg/apis/core/v1beta1"
	extensionsv1alpha1 "github.com/gardener/gardener/pkg/apis/extensions/v1alpha1"
	secretsutils "github.com/gardener/gardener/pkg/utils/secrets"

	"github.com/gardener/gardener-extension-registry-cache/pkg/apis/registry/v1alpha3"
	"github.com/gardener/gardener-extension-registry-cache/pkg/controller"
	"github.com/gardener/gardener-extension-registry-cache/pkg/imagevector"
	"github.com/gardener/gardener-extension-registry-cache/pkg/upstream"
)

// Whoever trusts what is published can connect to the pods, at every moment:
// nodes and kubelets learn of a change when they please.
var _ = Describe("Certificates", func() {
	It("are trusted throughout a rotation of the certificate authorities", func(ctx SpecContext) {
		source := startUpstream("", "")
		config, name := cache{"upstream": source.Host(), "remoteURL": source.URL()}, upstream.ResourceName(source.Host())
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, config)
		cachePod := startPod(ctx, name)
		unchanged := expectUnchanged(ctx, name)
		observer := observeHandshakes(ctx, cachePod, time.Now, func(ctx context.Context) ([]byte, error) { return publishedBundle(ctx, seed, namespace) })
		before := readTrust(ctx, namespace, name)
		old := before.authorities[0]
		Expect(before.authorities).To(HaveLen(1))

		rotate := func(phase gardencorev1beta1.CredentialsRotationPhase, expected func(Gomega, trust)) trust {
			GinkgoHelper()
			By(string(phase))
			setCARotation(ctx, namespace, phase)
			var after trust
			// More than once: the controller may know of the phase a moment later, which
			// is long before gardenlet has it reconcile the Extension.
			Eventually(func(g Gomega) {
				reconcile(ctx, namespace, config)
				after = readTrust(ctx, namespace, name)
				expected(g, after)
			}).WithContext(ctx).WithTimeout(time.Minute).Should(Succeed())

			By(string(phase) + ": whichever of the changes arrives first")
			for _, server := range []*x509.Certificate{before.server, after.server} {
				for _, authorities := range [][]*x509.Certificate{before.authorities, after.authorities} {
					expectTrusted(server, authorities, cachePod.address, time.Now())
				}
			}
			observer.await(HaveField("SerialNumber", before.server.SerialNumber))
			eventuallyServedInShoot(ctx, name, after.server)
			cachePod.syncSecret(ctx, name+"-tls")
			observer.await(HaveField("SerialNumber", after.server.SerialNumber))
			before = after
			return after
		}

		preparing := rotate(gardencorev1beta1.RotationPreparing, func(g Gomega, now trust) {
			g.Expect(now.authorities).To(And(HaveLen(2), ContainElement(old)))
			g.Expect(now.server.CheckSignatureFrom(old)).To(Succeed(), "there are nodes that trust nothing else yet")
		})
		renewed := preparing.authorities[0]
		Expect(renewed).NotTo(Equal(old), "the authority to come is the first of the bundle")
		for _, phase := range []gardencorev1beta1.CredentialsRotationPhase{
			gardencorev1beta1.RotationPreparingWithoutWorkersRollout, gardencorev1beta1.RotationWaitingForWorkersRollout,
		} {
			rotate(phase, func(g Gomega, now trust) { g.Expect(now).To(Equal(preparing)) })
		}
		prepared := rotate(gardencorev1beta1.RotationPrepared, func(g Gomega, now trust) {
			g.Expect(now.authorities).To(Equal(preparing.authorities))
			g.Expect(now.server.CheckSignatureFrom(renewed)).To(Succeed(), "all nodes trust it by now")
		})
		rotate(gardencorev1beta1.RotationCompleting, func(g Gomega, now trust) {
			g.Expect(now.authorities).To(ConsistOf(renewed))
			g.Expect(now.server).To(Equal(prepared.server), "a change would be of no use")
		})
		completed := rotate(gardencorev1beta1.RotationCompleted, func(g Gomega, now trust) {
			g.Expect(now.authorities).To(ConsistOf(renewed))
			g.Expect(now.server).To(Equal(prepared.server))
		})

		By("reconciling when the API server has the last phase for sure")
		Expect(reconcileAt(ctx, namespace, clock.RealClock{})).To(BeZero())
		Expect(readTrust(ctx, namespace, name)).To(Equal(completed))
		Expect(managedSecrets(ctx, namespace)).To(HaveLen(3), "of authority, bundle and server")
		Expect(observer.stop()).To(BeEmpty())
		unchanged(cachePod)
	}, SpecTimeout(3*time.Minute))

	It("are of the authority to come when the Shoot was hibernated throughout a rotation", func(ctx SpecContext) {
		config, name := cache{"upstream": "rotated-asleep.test"}, "registry-rotated-asleep-test"
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, config)
		before := readTrust(ctx, namespace, name)

		setHibernated(ctx, namespace, true)
		for _, phase := range []gardencorev1beta1.CredentialsRotationPhase{
			gardencorev1beta1.RotationPreparing, gardencorev1beta1.RotationPrepared,
			gardencorev1beta1.RotationCompleting, gardencorev1beta1.RotationCompleted,
		} {
			setCARotation(ctx, namespace, phase)
			Expect(reconcileAt(ctx, namespace, clock.RealClock{})).To(BeZero(), string(phase))
		}
		setHibernated(ctx, namespace, false)
		Eventually(func(g Gomega) {
			reconcile(ctx, namespace, config)
			after := readTrust(ctx, namespace, name)
			g.Expect(after.authorities).To(And(HaveLen(1), Not(Equal(before.authorities))))
			g.Expect(after.server.CheckSignatureFrom(after.authorities[0])).To(Succeed())
		}).WithContext(ctx).WithTimeout(time.Minute).Should(Succeed())

		Expect(managedSecrets(ctx, namespace)).To(HaveLen(3), "of authority, bundle and server")
		Expect(reconcileAt(ctx, namespace, clock.RealClock{})).To(BeZero())
	}, SpecTimeout(2*time.Minute))

	It("of servers are renewed before they expire", func(ctx SpecContext) {
		source := startUpstream("", "")
		name := upstream.ResourceName(source.Host())
		namespace := newShoot(ctx)
		reconcile(ctx, namespace, cache{"upstream": source.Host(), "remoteURL": source.URL()})
		cachePod := startPod(ctx, name)
		unchanged := expectUnchanged(ctx, name)
		issued := readTrust(ctx, namespace, name)
		start := time.Now()
		fakeClock := clocktesting.NewFakeClock(start)
		useClockForCertificates(fakeClock)
		observer := observeHandshakes(ctx, cachePod, fakeClock.Now, func(ctx context.Context) ([]byte, error) { return publishedBundle(ctx, seed, namespace) })

		By("reconciling a day before the renewal is due")
		fakeClock.SetTime(start.Add(71 * 24 * time.Hour))
		Expect(reconcileAt(ctx, namespace, fakeClock)).To(BeZero())
		Expect(readTrust(ctx, namespace, name)).To(Equal(issued))
		observer.await(HaveField("SerialNumber", issued.server.SerialNumber))

		By("reconciling a day after the renewal is due")
		fakeClock.SetTime(start.Add(73 * 24 * time.Hour))
		Expect(reconcileAt(ctx, namespace, fakeClock)).NotTo(BeZero())
		renewed := readTrust(ctx, namespace, name)
		Expect(renewed.authorities).To(Equal(issued.authorities))
		Expect(renewed.server.SerialNumber).NotTo(Equal(issued.server.SerialNumber))
		Expect(renewed.server.NotAfter).To(BeTemporally("~", fakeClock.Now().Add(90*24*time.Hour), time.Minute))
		Expect(managedSecrets(ctx, namespace)).To(HaveLen(3), "the one before is gone")
		eventuallyServedInShoot(ctx, name, renewed.server)
		observer.await(HaveField("SerialNumber", issued.server.SerialNumber))
		cachePod.syncSecret(ctx, name+"-tls")
		observer.await(HaveField("SerialNumber", renewed.server.SerialNumber))

		By("reconciling when the first certificate would have expired")
		fakeClock.SetTime(start.Add(91 * 24 * time.Hour))
		Expect(reconcileAt(ctx, namespace, fakeClock)).To(BeZero())
		handshakes := observer.count()
		Eventually(observer.count).Should(BeNumerically(">", handshakes+1))
		Expect(observer.stop()).To(BeEmpty())
		unchanged(cachePod)
	}, SpecTimeout(2*time.Minute))
})

// trust is what nodes trust, and what the pods of a cache are to serve with.
type trust struct {
	authorities []*x509.Certificate
	server      *x509.Certificate
}

// readTrust reads what the controller last wrote in the Seed.
func readTrust(ctx context.Context, namespace, name string) trust {
	GinkgoHelper()
	return readTrustIn(ctx, seed, namespace, name)
}

func readTrustIn(ctx context.Context, seed client.Client, namespace, name string) trust {
	GinkgoHelper()
	bundle, err := publishedBundle(ctx, seed, namespace)
	Expect(err).NotTo(HaveOccurred())
	authorities, err := cert.ParseCertsPEM(bundle)
	Expect(err).NotTo(HaveOccurred())
	secrets := &corev1.SecretList{}
	// There are two for a moment, when there is a new one.
	Eventually(func(g Gomega) {
		g.Expect(seed.List(ctx, secrets, client.InNamespace(namespace), client.MatchingLabels{
			"manager-identity": "extension-registry-cache", "name": name + "-tls",
		})).To(Succeed())
		g.Expect(secrets.Items).To(HaveLen(1))
	}).WithContext(ctx).Should(Succeed())
	servers, err := cert.ParseCertsPEM(secrets.Items[0].Data["tls.crt"])
	Expect(err).NotTo(HaveOccurred())
	Expect(servers).To(HaveLen(1))
	return trust{authorities: authorities, server: servers[0]}
}

// publishedBundle returns the authorities that the Extension's status names.
func publishedBundle(ctx context.Context, seed client.Client, namespace string) ([]byte, error) {
	extension := &extensionsv1alpha1.Extension{}
	if err := seed.Get(ctx, client.ObjectKey{Namespace: namespace, Name: v1alpha3.ExtensionType}, extension); err != nil {
		return nil, err
	}
	if extension.Status.ProviderStatus == nil {
		return nil, errors.New("no status is published")
	}
	status, err := v1alpha3.DecodeStatus(extension.Status.ProviderStatus.Raw)
	if err != nil {
		return nil, err
	}
	secret := &corev1.Secret{}
	err = seed.Get(ctx, client.ObjectKey{Namespace: namespace, Name: ptr.Deref(status.CASecretName, "")}, secret)
	return secret.Data["bundle.crt"], err
}

func expectTrusted(server *x509.Certificate, authorities []*x509.Certificate, address string, now time.Time) {
	GinkgoHelper()
	roots := x509.NewCertPool()
	for _, authority := range authorities {
		roots.AddCert(authority)
	}
	_, err := server.Verify(x509.VerifyOptions{Roots: roots, DNSName: address, CurrentTime: now})
	Expect(err).NotTo(HaveOccurred())
}

// eventuallyServedInShoot waits until a certificate has reached the Shoot.
func eventuallyServedInShoot(ctx context.Context, name string, certificate *x509.Certificate) {
	GinkgoHelper()
	secret := &corev1.Secret{}
	Eventually(func(g Gomega) {
		g.Expect(shoot.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceSystem, Name: name + "-tls"}, secret)).To(Succeed())
		block, _ := pem.Decode(secret.Data["tls.crt"])
		g.Expect(block).To(HaveField("Bytes", certificate.Raw))
	}).WithContext(ctx).Should(Succeed())
}

// expectUnchanged returns an expectation that pod, claim, Service and StatefulSet
// of a cache are those of now, and that the pod's process is.
func expectUnchanged(ctx context.Context, name string) func(*pod) {
	GinkgoHelper()
	read := func() []any {
		GinkgoHelper()
		statefulSet := &appsv1.StatefulSet{}
		eventuallyInShoot(ctx, statefulSet, name)
		podObject, claim := awaitPodAndClaim(ctx, name)
		return []any{
			podObject.UID, podObject.DeletionTimestamp, claim.UID, claim.DeletionTimestamp,
			statefulSet.UID, statefulSet.Generation, clusterIP(ctx, name),
		}
	}
	before := read()
	return func(p *pod) {
		GinkgoHelper()
		Expect(read()).To(Equal(before))
		Expect(p.object.UID).To(Equal(before[0]))
		Expect(p.session).NotTo(BeNil())
		Expect(p.session.ExitCode()).To(Equal(-1), "the process never ended")
	}
}

// setCARotation sets how far the rotation of the Shoot's certificate authorities is.
func setCARotation(ctx context.Context, namespace string, phase gardencorev1beta1.CredentialsRotationPhase) {
	GinkgoHelper()
	changeShoot(ctx, namespace, func(shoot *gardencorev1beta1.Shoot) {
		if phase == gardencorev1beta1.RotationPreparing {
			shoot.Status.Credentials = &gardencorev1beta1.ShootCredentials{Rotation: &gardencorev1beta1.ShootCredentialsRotation{
				CertificateAuthorities: &gardencorev1beta1.CARotation{LastInitiationTime: ptr.To(metav1.Now())},
			}}
		}
		shoot.Status.Credentials.Rotation.CertificateAuthorities.Phase = phase
	})
}

func setHibernated(ctx context.Context, namespace string, hibernated bool) {
	GinkgoHelper()
	changeShoot(ctx, namespace, func(shoot *gardencorev1beta1.Shoot) {
		shoot.Spec.Hibernation = &gardencorev1beta1.Hibernation{Enabled: &hibernated}
		shoot.Status.IsHibernated = hibernated
	})
}

// changeShoot changes the Shoot in its Cluster resource, as gardenlet does before it
// reconciles the Shoot's Extensions.
func changeShoot(ctx context.Context, namespace string, change func(*gardencorev1beta1.Shoot)) {
	GinkgoHelper()
	cluster := &extensionsv1alpha1.Cluster{}
	Expect(seed.Get(ctx, client.ObjectKey{Name: namespace}, cluster)).To(Succeed())
	shootObject, err := extensionscontroller.ShootFromCluster(cluster)
	Expect(err).NotTo(HaveOccurred())
	change(shootObject)
	patch := client.MergeFrom(cluster.DeepCopy())
	cluster.Spec.Shoot.Raw, err = json.Marshal(shootObject)
	Expect(err).NotTo(HaveOccurred())
	Expect(seed.Patch(ctx, cluster, patch)).To(Succeed())
}

// reconcileAt reconciles the Extension of a Shoot at the time of a clock, and
// returns the number of writes.
func reconcileAt(ctx context.Context, namespace string, at clock.Clock) int64 {
	GinkgoHelper()
	extension := &extensionsv1alpha1.Extension{}
	Expect(seed.Get(ctx, client.ObjectKey{Namespace: namespace, Name: v1alpha3.ExtensionType}, extension)).To(Succeed())
	images, err := imagevector.Read()
	Expect(err).NotTo(HaveOccurred())
	requests := &requestCounter{}
	actuator := controller.NewCacheActuator(requests.client(), seed, controller.ShootClient, at, images)
	Expect(actuator.Reconcile(ctx, logr.Discard(), extension)).To(Succeed())
	return requests.writes.Load()
}

// useClockForCertificates has certificates that this process generates be valid
// from the time of a clock on.
func useClockForCertificates(c clock.Clock) {
	before := secretsutils.Clock
	secretsutils.Clock = c
	DeferCleanup(func() { secretsutils.Clock = before })
}

// handshakes are TLS connections to a cache, one after the other.
type handshakes struct {
	cancel context.CancelFunc
	ended  chan struct{}

	mu       sync.Mutex
	done     int
	served   *x509.Certificate
	failures []string
}

// observeHandshakes connects to a cache all the time, with the authorities that are
// trusted at that moment, until it is stopped or the spec ends.
func observeHandshakes(ctx context.Context, p *pod, now func() time.Time, trusted func(context.Context) ([]byte, error)) *handshakes {
	ctx, cancel := context.WithCancel(ctx)
	h := &handshakes{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(h.ended)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				bundle, err := trusted(ctx)
				if apierrors.IsNotFound(err) {
					// The status just got to name another.
					continue
				}
				var served *x509.Certificate
				if err == nil {
					served, err = handshake(ctx, p.address, bundle, now)
				}
				if ctx.Err() == nil {
					h.add(served, err)
				}
			}
		}
	}()
	DeferCleanup(func() { h.stop() })
	return h
}

func (h *handshakes) add(served *x509.Certificate, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.failures = append(h.failures, err.Error())
		return
	}
	h.done++
	h.served = served
}

// await waits for a handshake that begins after now and whose certificate matches.
func (h *handshakes) await(matcher OmegaMatcher) {
	GinkgoHelper()
	before := h.count()
	Eventually(func(g Gomega) {
		h.mu.Lock()
		defer h.mu.Unlock()
		g.Expect(h.failures).To(BeEmpty())
		// One may have begun before.
		g.Expect(h.done).To(BeNumerically(">", before+1))
		g.Expect(h.served).To(matcher)
	}).Should(Succeed())
}

func (h *handshakes) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.done
}

// stop ends the observation and returns what has failed.
func (h *handshakes) stop() []string {
	h.cancel()
	<-h.ended
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failures
}

// handshake connects as containerd does and returns the certificate of the server.
func handshake(ctx context.Context, address string, authorities []byte, now func() time.Time) (*x509.Certificate, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("no certificates in %q", authorities)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	dialer := &tls.Dialer{Config: &tls.Config{RootCAs: roots, Time: now, MinVersion: tls.VersionTLS12}}
	connection, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(address, "5000"))
	if err != nil {
		return nil, fmt.Errorf("connect to the cache: %w", err)
	}
	state := connection.(*tls.Conn).ConnectionState()
	return state.PeerCertificates[0], connection.Close()
}
