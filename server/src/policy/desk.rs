//! Door B's desk: what a backend may serve by what it shows, credential by credential.
//!
//! Each credential is asked once at most, whatever is wanted: one of them may be an authorizer outside.

use std::sync::Arc;

use crate::auth::{Claim, Credential, Mark, Pass, Refusal};
use crate::site::Site;

use super::names::includes;
use super::{Policy, Refused, Target, forbidden};

/// One registration.
pub(super) struct Desk<'a> {
    claim: &'a Claim<'a>,
    asked: Vec<(Arc<dyn Credential>, Option<Pass>)>,
    challenges: Vec<&'static str>,
    /// Why the last one that was of the right kind didn't let it in.
    why: Option<Refusal>,
    unavailable: bool,
}

impl<'a> Desk<'a> {
    pub(super) fn new(claim: &'a Claim<'a>) -> Self {
        let (asked, challenges) = (Vec::new(), Vec::new());
        Self { claim, asked, challenges, why: None, unavailable: false }
    }

    /// The digests of the secrets that let it in.
    pub(super) fn marks(&self) -> Vec<Mark> {
        self.asked.iter().filter_map(|(_, pass)| Some(pass.as_ref()?.mark)).collect()
    }

    async fn passes(&mut self, credential: &Arc<dyn Credential>) -> Option<Pass> {
        let known = self.asked.iter().find(|(asked, _)| Arc::ptr_eq(asked, credential));
        if let Some((_, pass)) = known {
            return pass.clone();
        }
        let pass = match credential.check(self.claim).await {
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
        self.asked.push((credential.clone(), pass.clone()));
        pass
    }

    /// Whether it may serve the route at that place.
    async fn route(&mut self, policy: &Policy, place: usize) -> Option<Site> {
        let (route, admits) = (policy.routes.get(place)?, policy.admits.get(place)?);
        let Some(credentials) = &admits.credentials else {
            // No key is proven here, so only an open gateway lets it in.
            return admits.known.admits_generally(None).then(|| route.site.clone());
        };
        for credential in credentials {
            if self.passes(credential).await.is_some() {
                return Some(route.site.clone());
            }
        }
        None
    }

    /// Everything that it is good for.
    pub(super) async fn anything(&mut self, policy: &Policy) -> Result<Vec<Site>, Refused> {
        let mut sites = Vec::new();
        for place in 0..policy.routes.len() {
            sites.extend(self.route(policy, place).await);
        }
        for grant in policy.name_grants() {
            let Some(pass) = self.passes(&grant.credential).await else { continue };
            let names = pass.name.map(|name| vec![name]).or(grant.names.clone());
            sites.extend(names.into_iter().flatten().map(Site::Name));
        }
        if sites.is_empty() {
            return Err(self.refuse(policy, "anything without a name of its choice").await);
        }
        Ok(sites)
    }

    /// The routes that visitors of this host come to, or the dynamic name that it spells: not those of a
    /// wider pattern, which a narrower one has taken the host from.
    pub(super) async fn host(&mut self, policy: &Policy, host: &str) -> Result<Vec<Site>, Refused> {
        let mut sites = Vec::new();
        for target in policy.table.at(host) {
            if let Target::Route(place) = target {
                sites.extend(self.route(policy, *place).await);
            }
        }
        if sites.is_empty() {
            return match policy.name_at(host) {
                Some(name) => self.name(policy, &name).await,
                None => Err(self.refuse(policy, &format!("{host:?}")).await),
            };
        }
        Ok(sites)
    }

    /// A dynamic name.
    pub(super) async fn name(&mut self, policy: &Policy, name: &str) -> Result<Vec<Site>, Refused> {
        for grant in policy.name_grants() {
            if !includes(grant, name) {
                continue;
            }
            let pass = self.passes(&grant.credential).await;
            // A credential that speaks of a name is good for that one alone.
            if pass.is_some_and(|pass| pass.name.is_none_or(|own| own == name)) {
                return Ok(vec![Site::Name(name.to_owned())]);
            }
        }
        Err(self.refuse(policy, &format!("the name {name:?}")).await)
    }

    /// Tells those who are good for something else from those who are good for nothing.
    async fn refuse(&mut self, policy: &Policy, what: &str) -> Refused {
        for credential in policy.credentials() {
            if self.passes(credential).await.is_some() {
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
