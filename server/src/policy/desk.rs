//! Door B's desk: what a backend may serve by what it shows, credential by credential.
//!
//! Each credential is asked once at most, whatever is wanted: one of them may be an authorizer outside.

use std::sync::Arc;

use crate::auth::{Claim, Credential, Pass, Refusal};
use crate::identity::Grant;
use crate::identity::Mark;

use super::admits::{Admits, Scope};
use super::names::Names;
use super::{Policy, Refused, Target, forbidden};

/// One registration.
pub(super) struct Desk<'a> {
    claim: &'a Claim<'a>,
    asked: Vec<Question>,
    challenges: Vec<&'static str>,
    /// Why the last one that was of the right kind didn't let it in.
    why: Option<Refusal>,
    unavailable: bool,
    /// Whether authorizers outside are asked.
    abroad: bool,
}

/// A credential, the hosts that it was asked about, and its answer.
type Question = (Arc<dyn Credential>, Vec<String>, Option<Pass>);

impl<'a> Desk<'a> {
    pub(super) fn new(claim: &'a Claim<'a>) -> Self {
        let (asked, challenges) = (Vec::new(), Vec::new());
        Self { claim, asked, challenges, why: None, unavailable: false, abroad: false }
    }

    /// Who it is, by the first credential that let it in.
    pub(super) fn who(&self) -> Option<Mark> {
        self.asked.iter().find_map(|(_, _, pass)| Some(pass.as_ref()?.who))
    }

    /// `hosts`: those at stake, where the backend itself names none. What an authorizer says is good for the
    /// hosts that it was asked about, so it is asked anew about others.
    async fn passes(&mut self, credential: &Arc<dyn Credential>, hosts: &[String]) -> Option<Pass> {
        let named = !self.claim.hosts.is_empty() || self.claim.name.is_some();
        let hosts = if named { self.claim.hosts } else { hosts };
        let local = !credential.is_abroad();
        let known = self.asked.iter().find(|(asked, about, _)| {
            Arc::ptr_eq(asked, credential) && (local || about.as_slice() == hosts)
        });
        if let Some((_, _, pass)) = known {
            return pass.clone();
        }
        if credential.is_abroad() && !self.abroad {
            return None;
        }
        let claim = Claim { hosts, ..*self.claim };
        let pass = match credential.check(&claim).await {
            Ok(pass) => Some(pass),
            Err(refusal) => {
                self.unavailable |= matches!(refusal, Refusal::Unavailable(_));
                if !matches!(refusal, Refusal::Absent) {
                    self.why = Some(refusal);
                }
                None
            }
        };
        if let Some(challenge) = credential.challenge()
            && !self.challenges.contains(&challenge)
        {
            self.challenges.push(challenge);
        }
        self.asked.push((credential.clone(), hosts.to_vec(), pass.clone()));
        pass
    }

    /// What it may serve of a route. `wanted`: the one host of it that it asks for, and where that stands. A
    /// credential that is judged here is good for the whole route, an authorizer's answer for what it was asked.
    async fn route(
        &mut self,
        policy: &Policy,
        admits: &Admits,
        wanted: Option<(usize, &str)>,
    ) -> Vec<Grant> {
        let Some(credentials) = admits.credentials() else {
            // No key is proven here, so only an open gateway lets it in.
            let sites = if admits.admits_key(None) { policy.sites(admits) } else { Vec::new() };
            return sites.into_iter().map(Grant::by_key).collect();
        };
        for credential in credentials {
            let Some(pass) = self.passes(credential, &admits.hosts).await else { continue };
            let sites = match (Scope::of(&**credential), wanted) {
                (Scope::Host, Some((index, host))) => {
                    policy.single(index, host).into_iter().collect()
                }
                (Scope::Host, None) | (Scope::Route, _) => policy.sites(admits),
            };
            return sites.into_iter().map(|site| Grant::by_secret(site, pass.mark)).collect();
        }
        Vec::new()
    }

    /// Everything that it is good for. Authorizers outside are asked only if nobody here knows it: what is
    /// good for one route is none of another one's authorizer's business.
    pub(super) async fn anything(&mut self, policy: &Policy) -> Result<Vec<Grant>, Refused> {
        let mut sites = self.everything(policy).await;
        if sites.is_empty() {
            self.abroad = true;
            sites = self.everything(policy).await;
        }
        if sites.is_empty() {
            return Err(self.refuse(policy, "anything without a name of its choice").await);
        }
        Ok(sites)
    }

    async fn everything(&mut self, policy: &Policy) -> Vec<Grant> {
        let mut grants = Vec::new();
        for admits in policy.groups() {
            grants.extend(self.route(policy, admits, None).await);
        }
        let domain = policy.names.as_ref().map_or("", Names::domain);
        for grant in policy.name_grants() {
            let names = grant.names.iter().flatten();
            let hosts: Vec<_> = names
                .filter(|_| !domain.is_empty())
                .map(|name| format!("{name}.{domain}"))
                .collect();
            let Some(pass) = self.passes(&grant.credential, &hosts).await else { continue };
            let names = match pass.name {
                // It speaks of one name, which must be among the granted ones all the same.
                Some(name) => (policy.is_granted(grant, &name) && policy.speaks_of(&name))
                    .then_some(vec![name]),
                None => grant.names.clone(),
            };
            let names = names.into_iter().flatten();
            grants.extend(names.map(|name| Grant::of_name(&name, domain, pass.mark)));
        }
        grants
    }

    /// The routes that visitors of this host come to, or the dynamic name that it spells: not those of a
    /// wider pattern, which a narrower one has taken the host from.
    pub(super) async fn host(
        &mut self,
        policy: &Policy,
        host: &str,
    ) -> Result<Vec<Grant>, Refused> {
        self.abroad = true;
        let mut grants = Vec::new();
        for target in policy.table.at(host) {
            if let Target::Route(index) = target
                && let Some(admits) = policy.admits.get(*index)
            {
                grants.extend(self.route(policy, admits, Some((*index, host))).await);
            }
        }
        if grants.is_empty() {
            return match policy.name_at(host) {
                Some(name) => self.name(policy, &name).await,
                None => Err(self.refuse(policy, &format!("{host:?}")).await),
            };
        }
        Ok(grants)
    }

    /// A dynamic name.
    pub(super) async fn name(
        &mut self,
        policy: &Policy,
        name: &str,
    ) -> Result<Vec<Grant>, Refused> {
        self.abroad = true;
        for grant in policy.name_grants() {
            if !policy.is_granted(grant, name) || !policy.speaks_of(name) {
                continue;
            }
            let pass = self.passes(&grant.credential, &[]).await;
            // A credential that speaks of a name is good for that one alone.
            if let Some(pass) = pass.filter(|pass| pass.name.as_ref().is_none_or(|own| own == name))
            {
                let domain = policy.names.as_ref().map_or("", Names::domain);
                return Ok(vec![Grant::of_name(name, domain, pass.mark)]);
            }
        }
        Err(self.refuse(policy, &format!("the name {name:?}")).await)
    }

    /// Tells those who are good for something else from those who are good for nothing. Nobody outside
    /// is asked for that.
    async fn refuse(&mut self, policy: &Policy, what: &str) -> Refused {
        self.abroad = false;
        for credential in policy.credentials() {
            if self.passes(credential, &[]).await.is_some() {
                return forbidden(what.to_owned());
            }
        }
        if self.unavailable {
            return Refused::Unavailable;
        }
        let why =
            self.why.as_ref().map_or("it showed no credential".to_owned(), Refusal::to_string);
        Refused::Unknown { challenges: std::mem::take(&mut self.challenges), why }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Mutex;

    use crate::auth::{Checking, Known};
    use crate::config::{Admission, CertificateSource, Config, NameGrant, Names, Route};
    use crate::policy::Wish;
    use crate::router::RouteId;

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
        Claim { key: None, authorization: None, address, hosts: &[], name: None }
    }

    /// C5, C7: what one route's backend shows is none of another one's authorizer's business.
    #[tokio::test]
    async fn an_authorizer_outside_hears_only_of_what_concerns_it() {
        let here = Arc::new(Judge { takes: true, ..Judge::default() });
        let outside = Arc::new(Judge { takes: true, abroad: true, ..Judge::default() });
        let both = policy(&[("a", &here), ("b", &outside)], None);
        let (_, grants) = both.register(&claim(), &Wish::Any, None).await.unwrap();
        assert_eq!(sites(&grants), [host("a.test")], "known here");
        let unknown = both.register(&claim(), &Wish::Hosts(vec!["c.test".into()]), None).await;
        assert!(matches!(unknown, Err(Refused::Forbidden(_))), "{unknown:?}");
        assert!(outside.asked.lock().unwrap().is_empty());

        let alone = policy(&[("b", &outside)], None);
        let (_, grants) = alone.register(&claim(), &Wish::Any, None).await.unwrap();
        assert_eq!(sites(&grants), [host("b.test")]);
        assert_eq!(*outside.asked.lock().unwrap(), [["b.test".to_owned()]], "asked with its hosts");

        outside.asked.lock().unwrap().clear();
        let names = Some(["alice", "bob"].map(str::to_owned).to_vec());
        let grant = NameGrant { names, credential: outside.clone() };
        let named = policy(&[], Some(Names::new("names.test", vec![grant])));
        let (_, grants) = named.register(&claim(), &Wish::Any, None).await.unwrap();
        assert_eq!(sites(&grants), ["alice", "bob"].map(|name| RouteId::Name(name.into())));
        let asked = ["alice.names.test", "bob.names.test"].map(str::to_owned);
        assert_eq!(*outside.asked.lock().unwrap(), [asked], "asked with its names");
    }

    /// C5: a token that speaks of a name is good for it only where that name is granted.
    #[tokio::test]
    async fn a_name_must_be_granted_though_the_credential_speaks_of_it() {
        let judge = Arc::new(Judge { takes: true, name: Some("alice".into()), ..Judge::default() });
        for (granted, fine) in [(Some(vec!["bob".to_owned()]), false), (None, true)] {
            let grant = NameGrant { names: granted, credential: judge.clone() };
            let policy = policy(&[], Some(Names::new("names.test", vec![grant])));
            for wish in [Wish::Any, Wish::Name("alice".into())] {
                assert_eq!(policy.register(&claim(), &wish, None).await.is_ok(), fine, "{wish:?}");
            }
            assert!(policy.register(&claim(), &Wish::Name("bob".into()), None).await.is_err());
        }
    }
}
