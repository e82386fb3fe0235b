//! One evaluation of the policy: what a backend may serve by what it shows, credential by credential, at either door.
//!
//! Each credential is asked once at most, whatever is wanted: one of them may be an authorizer outside.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use thiserror::Error;

use crate::auth::{Admits, Claim, Credential, Pass, Refusal};
use crate::identity::{Grant, Identity, Mark};
use crate::router::RouteId;

use super::route::Configured;
use super::{Policy, Target};

impl Policy {
    /// Door A: what a backend may serve by the key that TLS proved, of what its certificate and ClientHello ask for.
    ///
    /// # Errors
    /// [`Refused::Forbidden`]: its key is good for something, but not for what it asks.
    pub async fn admit(&self, identity: &Identity, address: IpAddr) -> Result<Vec<Grant>, Refused> {
        let Identity { key, chain, .. } = identity;
        let claim =
            Claim { key: *key, chain, authorization: None, address, hosts: &[], name: None };
        let (mut evaluation, mut grants) = (Evaluation::new(self, &claim), Vec::new());
        let sni = identity.sni.as_deref();
        // In another program's certificate the OU may be what its company always writes there.
        let fits = |it: &str| self.names.as_ref().is_some_and(|names| names.is_fit(it));
        // In an authority's certificate it is, too.
        let free = self.is_open() || key.is_some_and(|key| self.names(&key));
        let wish = identity.wish.as_deref().filter(|it| free && (identity.ours || fits(it)));
        if let Some(wish) = wish {
            let forbidden = || Refused::Forbidden(format!("the name {wish:?}"));
            grants.push(evaluation.named(wish).await.ok_or_else(forbidden)?);
        } else if let Some(name) = sni.and_then(|host| self.name_at(host)) {
            grants.extend(evaluation.named(&name).await);
        }
        if grants.is_empty() {
            grants = evaluation.routes(sni).await;
        }
        if grants.is_empty() {
            grants = evaluation.listed().await;
        }
        if grants.is_empty() {
            return Err(Refused::Forbidden(ANYTHING.to_owned()));
        }
        at_path(grants, identity.path.as_deref())
    }

    /// Door B: what a backend may serve by its `claim`, of what that asks for (anything, if it names neither hosts nor a
    /// name), at `path` alone if there is one; and its principal, unless the gateway is open. May ask an authorizer
    /// outside, under its deadline. Cancel safe.
    pub async fn register(
        &self,
        claim: &Claim<'_>,
        path: Option<&str>,
    ) -> Result<(Option<Mark>, Vec<Grant>), Refused> {
        let (mut evaluation, mut grants) = (Evaluation::new(self, claim), Vec::new());
        if let Some(name) = claim.name {
            grants.push(evaluation.name(name).await?);
        } else if claim.hosts.is_empty() {
            // Authorizers outside are asked only if no credential here is good for anything: what is good for one
            // route is not the business of another route's authorizer.
            for abroad in [false, true] {
                evaluation.abroad = abroad;
                if grants.is_empty() {
                    grants = evaluation.routes(None).await;
                    grants.extend(evaluation.listed().await);
                }
            }
            if grants.is_empty() {
                return Err(evaluation.refuse(ANYTHING).await);
            }
        }
        // Every one of them (draft-kazuho-ptth-ptth-01), or nothing.
        for host in claim.hosts {
            grants.extend(evaluation.host(host).await?);
        }
        let mut seen = HashSet::new();
        grants.retain(|grant| seen.insert(grant.route().clone()));
        Ok((evaluation.who, at_path(grants, path)?))
    }

    /// The targets of a guess that asks for a name or hosts, as text: routes, by their first hosts, and names. What isn't
    /// in the configuration is none, since a stranger makes up as much of it as it likes.
    pub fn targets(&self, name: Option<&str>, hosts: &[String]) -> BTreeSet<String> {
        let text = |target: &Target| match target {
            Target::Route(route) => route.configured.hosts.first().cloned().unwrap_or_default(),
            Target::Names => "a name".to_owned(),
        };
        let any = (name.is_none() && hosts.is_empty()).then(|| "*".to_owned());
        let found = hosts.iter().flat_map(|host| self.table.at(host)).map(text);
        found.chain(name.map(|_| text(&Target::Names))).chain(any).collect()
    }
}

#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Refused {
    #[error("not admitted: {why}")]
    Unknown {
        /// The schemes that might be known, for WWW-Authenticate (RFC 9110 §11.6.1).
        challenges: Vec<&'static str>,
        /// For the gateway's log alone.
        why: String,
    },
    #[error("not allowed to serve {0}")]
    Forbidden(String),
    /// The authorizer that decides about it.
    #[error("the authorizer can't be asked")]
    Unavailable,
}

/// Those routes that are at the path that a backend wants to serve alone, if it names one.
fn at_path(mut found: Vec<Grant>, path: Option<&str>) -> Result<Vec<Grant>, Refused> {
    let Some(path) = path else { return Ok(found) };
    found.retain(|found| matches!(found.route(), RouteId::Host(_, known) if **known == *path));
    if found.is_empty() { Err(Refused::Forbidden(format!("the path {path:?}"))) } else { Ok(found) }
}

struct Evaluation<'a> {
    policy: &'a Policy,
    claim: &'a Claim<'a>,
    /// The principal, by the first credential that admitted it.
    who: Option<Mark>,
    /// By credential and, of those outside, by the hosts that they were asked about.
    asked: HashMap<(usize, Vec<String>), Option<Pass>>,
    challenges: Vec<&'static str>,
    refusals: Vec<Refusal>,
    abroad: bool,
}

impl<'a> Evaluation<'a> {
    fn new(policy: &'a Policy, claim: &'a Claim<'a>) -> Self {
        let (asked, challenges, refusals) = Default::default();
        Self { policy, claim, who: None, asked, challenges, refusals, abroad: false }
    }

    /// `hosts`: those at stake, where the backend itself names none. An authorizer's answer is good for the
    /// hosts that it was asked about, so it is asked anew about others.
    async fn passes(&mut self, credential: &Arc<dyn Credential>, hosts: &[String]) -> Option<Pass> {
        let named = !self.claim.hosts.is_empty() || self.claim.name.is_some();
        let hosts = if named { self.claim.hosts } else { hosts };
        let about = if credential.is_abroad() { hosts.to_vec() } else { Vec::new() };
        let key = (Arc::as_ptr(credential).cast::<()>() as usize, about);
        if let Some(answer) = self.asked.get(&key) {
            return answer.clone();
        }
        if credential.is_abroad() && !self.abroad {
            return None;
        }
        let answer = credential.check(&Claim { hosts, ..*self.claim }).await;
        let pass = answer.map_err(|refusal| self.refusals.push(refusal)).ok();
        let challenge = credential.challenge().filter(|it| !self.challenges.contains(it));
        self.challenges.extend(challenge);
        self.who = self.who.or(pass.as_ref().map(|pass| pass.who));
        self.asked.insert(key, pass.clone());
        pass
    }

    /// A grant by a key that TLS proved is judged again by the policy in force; one by a secret is good for this alone.
    fn grant(&self, id: RouteId, pass: &Pass) -> Grant {
        match self.claim.key {
            Some(_) => Grant::by_key(id),
            None => Grant::by_secret(id, pass.mark, self.domain()),
        }
    }

    fn domain(&self) -> &'a str {
        self.policy.names.as_ref().map_or("", |names| &names.domain)
    }

    /// What it may serve of a route: all, by a credential that is judged here; what it asks for, by an authorizer's
    /// answer.
    async fn route(&mut self, of: &Configured, wanted: Option<(&RouteId, &str)>) -> Vec<Grant> {
        let Some(credentials) = &of.settings.allow else {
            let fine = of.known.admits_generally(self.claim.key.as_ref());
            return of.ids.iter().filter(|_| fine).cloned().map(Grant::by_key).collect();
        };
        for credential in credentials {
            let Some(pass) = self.passes(credential, &of.hosts).await else { continue };
            let ids = match (wanted.filter(|_| credential.is_abroad()), &pass.hosts) {
                (_, Some(hosts)) => self.certified(of, hosts),
                (Some((id, host)), _) => id.at(host).into_iter().collect(),
                (None, _) => of.ids.clone(),
            };
            if !ids.is_empty() {
                return ids.into_iter().map(|id| self.grant(id, &pass)).collect();
            }
        }
        Vec::new()
    }

    /// What of a route a certificate is for: each of its `names` that visitors find there, or that is a pattern there.
    fn certified(&self, of: &Configured, names: &[String]) -> Vec<RouteId> {
        let mut ids = Vec::new();
        for name in names {
            let whole = of.hosts.iter().zip(&of.ids).filter(|(host, _)| *host == name);
            ids.extend(whole.map(|(_, id)| id.clone()));
            ids.extend(self.policy.table.at(name).filter_map(|target| match target {
                Target::Route(it) if std::ptr::eq(&*it.configured, of) => it.id.at(name),
                _ => None,
            }));
        }
        let mut seen = HashSet::new();
        ids.retain(|id| seen.insert(id.clone()));
        ids
    }

    /// The dynamic names that a credential speaks of, if it speaks of any.
    fn spoken(&self, pass: &Pass) -> Option<Vec<String>> {
        let named = pass.name.clone().map(|name| vec![name]);
        let names = |hosts: &Vec<String>| {
            hosts.iter().filter_map(|host| self.policy.name_at(host)).collect()
        };
        named.or_else(|| pass.hosts.as_ref().map(names))
    }

    /// What it may serve of the configured routes; of several those that have `host`, if one does.
    async fn routes(&mut self, host: Option<&str>) -> Vec<Grant> {
        let (mut all, mut here) = (Vec::new(), Vec::new());
        let at: Vec<_> = host.into_iter().flat_map(|host| self.policy.table.at(host)).collect();
        for of in &self.policy.configured {
            let grants = self.route(of, None).await;
            let has = |target: &&Target| matches!(target, Target::Route(it) if Arc::ptr_eq(&it.configured, of));
            let part = if at.iter().any(has) { &mut here } else { &mut all };
            part.extend(grants);
        }
        if here.is_empty() { all } else { here }
    }

    /// The names that it may have without asking for one.
    async fn listed(&mut self) -> Vec<Grant> {
        let (domain, mut grants) = (self.domain(), Vec::new());
        let Some(names) = &self.policy.names else { return grants };
        for entry in &names.allow {
            let listed = entry.names.iter().flatten().filter(|_| !domain.is_empty());
            let hosts: Vec<_> = listed.map(|name| format!("{name}.{domain}")).collect();
            let Some(pass) = self.passes(&entry.credential, &hosts).await else { continue };
            let good = match self.spoken(&pass) {
                // They must be among the granted ones all the same.
                Some(spoken) => {
                    Some(spoken.into_iter().filter(|it| names.may_have(entry, it)).collect())
                }
                None => entry.names.clone(),
            };
            let good = good.into_iter().flatten().map(RouteId::Name);
            grants.extend(good.map(|name| self.grant(name, &pass)));
        }
        grants
    }

    async fn named(&mut self, name: &str) -> Option<Grant> {
        let names = self.policy.names.as_ref()?;
        for entry in names.allow.iter().filter(|entry| names.may_have(entry, name)) {
            let pass = self.passes(&entry.credential, &[]).await;
            // A credential that speaks of names is good for those alone.
            let fits =
                |it: &Pass| self.spoken(it).is_none_or(|own| own.iter().any(|it| it == name));
            if let Some(pass) = pass.filter(fits) {
                return Some(self.grant(RouteId::Name(name.to_owned()), &pass));
            }
        }
        None
    }

    /// The routes that visitors of this host come to, or the dynamic name that it spells.
    async fn host(&mut self, host: &str) -> Result<Vec<Grant>, Refused> {
        self.abroad = true;
        let mut grants = Vec::new();
        for target in self.policy.table.at(host) {
            if let Target::Route(route) = target {
                grants.extend(self.route(&route.configured, Some((&route.id, host))).await);
            }
        }
        if !grants.is_empty() {
            return Ok(grants);
        }
        match self.policy.name_at(host) {
            Some(name) => Ok(vec![self.name(&name).await?]),
            None => Err(self.refuse(&format!("{host:?}")).await),
        }
    }

    async fn name(&mut self, name: &str) -> Result<Grant, Refused> {
        self.abroad = true;
        match self.named(name).await {
            Some(grant) => Ok(grant),
            None => Err(self.refuse(&format!("the name {name:?}")).await),
        }
    }

    /// Tells a backend that is good for something else from the others, without asking an authorizer.
    async fn refuse(&mut self, what: &str) -> Refused {
        self.abroad = false;
        for credential in self.policy.credentials() {
            if self.passes(credential, &[]).await.is_some() {
                return Refused::Forbidden(what.to_owned());
            }
        }
        if self.refusals.iter().any(|it| matches!(it, Refusal::Unavailable(_))) {
            return Refused::Unavailable;
        }
        // The last credential of the kind that was shown.
        let why = self.refusals.iter().rfind(|it| !matches!(it, Refusal::Absent));
        let why = why.map_or("it showed no credential".to_owned(), Refusal::to_string);
        Refused::Unknown { challenges: std::mem::take(&mut self.challenges), why }
    }
}

const ANYTHING: &str = "anything without a name of its choice";

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Mutex;

    use crate::auth::{Checking, Known};
    use crate::config::{Admission, CertificateSource, Config, NameGrant, Names, Route};

    use super::*;

    /// Takes whoever comes, or nobody, and notes what it was asked about.
    #[derive(Debug, Default)]
    struct Judge {
        takes: bool,
        name: Option<String>,
        abroad: bool,
        asked: Mutex<Vec<Vec<String>>>,
    }

    impl Credential for Judge {
        fn check<'a>(&'a self, claim: &'a Claim<'a>) -> Checking<'a> {
            self.asked.lock().unwrap().push(claim.hosts.to_vec());
            let pass = Pass { name: self.name.clone(), ..Pass::of(Mark::of("test", &[])) };
            let verdict = if self.takes { Ok(pass) } else { Err(Refusal::Wrong("no")) };
            Box::pin(std::future::ready(verdict))
        }

        fn keeps(&self, _: Mark) -> bool {
            self.takes
        }

        fn challenge(&self) -> Option<&'static str> {
            None
        }

        fn is_abroad(&self) -> bool {
            self.abroad
        }
    }

    fn policy(routes: &[(&str, &Arc<Judge>)], names: Option<Names>) -> Policy {
        let certificate = CertificateSource::SelfSigned { names: Vec::new(), kept: None };
        let mut config = Config::new(certificate, Admission::make());
        config.names = names;
        for (name, judge) in routes {
            let mut route = Route::new(*name, vec![format!("{name}.test").parse().unwrap()]);
            route.allow = Some(vec![(*judge).clone()]);
            config.routes.push(route);
        }
        Policy::new(&config, &Arc::new(Known::default()), 1, None)
    }

    fn sites(grants: &[Grant]) -> Vec<RouteId> {
        grants.iter().map(|grant| grant.route().clone()).collect()
    }

    fn host(name: &str) -> RouteId {
        RouteId::Host(name.parse().unwrap(), "/".into())
    }

    fn claim() -> Claim<'static> {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Claim { key: None, chain: &[], authorization: None, address, hosts: &[], name: None }
    }

    /// What one route's backend shows is none of another one's authorizer's business.
    #[tokio::test]
    async fn an_authorizer_outside_hears_only_of_what_concerns_it() {
        let here = Arc::new(Judge { takes: true, ..Judge::default() });
        let outside = Arc::new(Judge { takes: true, abroad: true, ..Judge::default() });
        let both = policy(&[("a", &here), ("b", &outside)], None);
        let (_, grants) = both.register(&claim(), None).await.unwrap();
        assert_eq!(sites(&grants), [host("a.test")], "known here");
        let hosts = ["c.test".to_owned()];
        let unknown = both.register(&Claim { hosts: &hosts, ..claim() }, None).await;
        assert!(matches!(unknown, Err(Refused::Forbidden(_))), "{unknown:?}");
        assert!(outside.asked.lock().unwrap().is_empty());

        let alone = policy(&[("b", &outside)], None);
        let (_, grants) = alone.register(&claim(), None).await.unwrap();
        assert_eq!(sites(&grants), [host("b.test")]);
        assert_eq!(*outside.asked.lock().unwrap(), [["b.test".to_owned()]], "asked with its hosts");

        outside.asked.lock().unwrap().clear();
        let names = Some(["alice", "bob"].map(str::to_owned).to_vec());
        let grant = NameGrant { names, credential: outside.clone() };
        let named = policy(&[], Some(Names::new("names.test", vec![grant])));
        let (_, grants) = named.register(&claim(), None).await.unwrap();
        assert_eq!(sites(&grants), ["alice", "bob"].map(|name| RouteId::Name(name.into())));
        let asked = ["alice.names.test", "bob.names.test"].map(str::to_owned);
        assert_eq!(*outside.asked.lock().unwrap(), [asked], "asked with its names");
    }

    /// A token that speaks of a name is good for it only where that name is granted.
    #[tokio::test]
    async fn a_name_must_be_granted_though_the_credential_speaks_of_it() {
        let judge = Arc::new(Judge { takes: true, name: Some("alice".into()), ..Judge::default() });
        for (granted, fine) in [(Some(vec!["bob".to_owned()]), false), (None, true)] {
            let grant = NameGrant { names: granted, credential: judge.clone() };
            let policy = policy(&[], Some(Names::new("names.test", vec![grant])));
            for name in [None, Some("alice")] {
                let claim = Claim { name, ..claim() };
                assert_eq!(policy.register(&claim, None).await.is_ok(), fine, "{name:?}");
            }
            let claim = Claim { name: Some("bob"), ..claim() };
            assert!(policy.register(&claim, None).await.is_err());
        }
    }

    /// For these, certificates may be ordered.
    #[cfg(feature = "acme")]
    #[test]
    fn the_hosts_of_dynamic_names_are_those_that_a_backend_serves_now() {
        let judge = Arc::new(Judge { takes: true, ..Judge::default() });
        let grant = NameGrant { names: None, credential: judge };
        let names = Names::new("names.test", vec![grant]);
        let policy = policy(&[], Some(Names { path_hosts: vec!["p.test".into()], ..names }));
        assert!(policy.find("bob.names.test", "/").is_err() && policy.named_hosts().is_empty());
        let names = ["bob", "no~host"].map(|name| RouteId::Name(name.into()));
        // As when a tunnel joins, and when the last one leaves.
        names.iter().for_each(|name| assert!(policy.make(name).is_some()));
        assert_eq!(policy.named_hosts().into_iter().collect::<Vec<_>>(), ["bob.names.test"]);
        names.iter().for_each(|name| policy.forget(name));
        assert!(policy.named_hosts().is_empty());
    }
}
