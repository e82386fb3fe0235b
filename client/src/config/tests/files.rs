//! The file of `--config`: what it can say, who beats it, and what is said about a wrong one.

use super::*;

/// What comes of `text` as a file, with `line` and `variables`; places begin with `FILE`.
fn with(text: &str, line: &str, variables: &[(&str, &str)]) -> Result<Options, String> {
    let file = Scratch::new(text);
    let path = file.0.display().to_string();
    let read = options(&format!("--config {path} {line}"), variables);
    read.map_err(|error| error.to_string().replace(&path, "FILE"))
}

fn one(text: &str, line: &str, variables: &[(&str, &str)]) -> Config {
    let options = with(text, line, variables).unwrap_or_else(|error| panic!("{error}"));
    options.services[0].config.clone()
}

#[test]
fn every_flag_has_a_key_of_its_name() {
    let help =
        ptth_link::cli::parse::<Args>("2ptth-client", ["--help".to_owned()]).unwrap_err().output;
    let flags = help.lines().filter_map(|line| line.trim_start().strip_prefix("--"));
    let flags: BTreeSet<_> =
        flags.map(|line| line.split(' ').next().unwrap().replace('-', "_")).collect();
    let settings = Args::SETTINGS.iter().filter(|setting| !setting.is(Mark::Secret));
    let keys: BTreeSet<_> = settings.clone().map(|setting| setting.name.to_owned()).collect();
    let other = ["config", "version", "gateway", "origin"].map(str::to_owned);
    let difference: BTreeSet<_> = flags.symmetric_difference(&keys).cloned().collect();
    assert_eq!(
        difference,
        BTreeSet::from(other),
        "flags that are no settings, settings without a flag"
    );
    for setting in settings {
        assert!(help.contains(setting.variable), "{}", setting.variable);
    }
}

#[test]
fn a_flag_beats_a_variable_which_beats_the_file_which_beats_the_default() {
    let file =
        "gateway = 'g'\ntunnels = 5\nhost-header = 'origin'\nany_host = true\nlog = 'warn'\n";
    let text = &format!("\u{feff}{}", file.replace('\n', "\r\n"));
    let options = with(text, "", &[]).unwrap();
    let service = &options.services[0];
    assert_eq!((service.label.as_deref(), options.log.level), (None, log::LevelFilter::Warn));
    assert_eq!(service.asking.host_header, HostHeader::Origin);
    assert_eq!(service.config.gateway.to_string(), "g:443");
    assert_eq!((service.config.tunnels, service.config.any_host), (5, true));
    assert_eq!(one(text, "", &[("TUNNELS", "4"), ("ANY_HOST", "0")]).tunnels, 4);
    assert!(!one(text, "", &[("ANY_HOST", "0")]).any_host);
    assert_eq!(one(text, "--tunnels 3", &[("TUNNELS", "4")]).tunnels, 3);
    assert_eq!(one(text, "", &[("TUNNELS", "")]).tunnels, 5, "empty is unset");
    assert_eq!(one(text, "other 8080", &[("GATEWAY", "third")]).gateway.host, "other");
    let file = Scratch::new(text);
    let by_variable = options_by_variable(&file);
    assert_eq!(by_variable.services[0].config.tunnels, 5);
}

fn options_by_variable(file: &Scratch) -> Options {
    options("", &[("CONFIG", file.0.to_str().unwrap())]).unwrap()
}

/// What is said closer hides what is said behind, where one of several ways is enough.
#[test]
fn another_way_to_say_the_same_hides_the_files() {
    let token = Scratch::new(TOKEN);
    let text = format!(
        "gateway = 'g'\nca = 'ca.pem'\ntoken_file = {:?}\nauthorization_command = 'x'\n",
        token.0
    );
    let pin = format!("sha256:{}", "a5".repeat(32));
    let config = one(&text, "", &[]);
    assert_eq!(config.trust, Trust::Ca(std::env::temp_dir().join("ca.pem")), "beside the file");
    assert_eq!(config.token.unwrap().reveal(), TOKEN);
    assert_eq!(one(&text, "", &[("PIN", &pin)]).trust, Trust::Pin([0xa5; 32]));
    assert_eq!(one(&text, "--insecure", &[]).trust, Trust::Insecure);
    assert!(matches!(one(&text, "", &[("INSECURE", "0")]).trust, Trust::Ca(_)));
    let other = Token::generate().reveal();
    assert_eq!(one(&text, "", &[("TOKEN", &other)]).token.unwrap().reveal(), other);
    let fixed = one(&text, "", &[("AUTHORIZATION", "Basic x")]).authorization;
    assert!(matches!(fixed, Some(Authorization::Fixed(_))), "{fixed:?}");
    let empty = with(&text, "", &[("TOKEN", "")]).unwrap_err();
    assert!(empty.contains("TOKEN is set but empty"), "{empty}");
}

#[test]
fn services_have_what_is_their_own_and_share_the_rest() {
    let token = Scratch::new(TOKEN);
    let text = format!(
        "gateway = 'g:8443'\ntunnels = 3\ntoken_file = {:?}\n\n\
         [[service]]\nhost = 'Blog.example.com'\norigin = '8080'\n\n\
         [[service]]\nname = 'shop'\norigin = 'tcp://localhost:22'\ntunnels = 1\n\
         authorization_command = 'echo secret'\n\n\
         [[service]]\npath = '/x'\norigin = 'unix:/run/x'\nhost_header = 'origin'\nany_host = true\n",
        token.0
    );
    let options = with(&text, "", &[]).unwrap();
    let [blog, shop, third] = &options.services[..] else { panic!("{options:?}") };
    let labels = [blog, shop, third].map(|service| service.label.clone().unwrap());
    assert_eq!(labels, ["blog.example.com", "shop", "3"]);
    assert_eq!(blog.config.host, "blog.example.com");
    assert_eq!((&shop.config.host, shop.config.name.as_deref()), (&"g".to_owned(), Some("shop")));
    assert_eq!(third.config.asked_host, None);
    assert_eq!([blog, shop, third].map(|service| service.config.tunnels), [3, 1, 3]);
    assert_eq!(
        [blog, shop, third].map(|service| service.origin.to_string()),
        ["http://localhost:8080", "tcp://localhost:22", "unix:/run/x"]
    );
    assert!(shop.config.authorization.is_some() && blog.config.authorization.is_none());
    assert!(third.config.any_host && third.asking.host_header == HostHeader::Origin);
    for service in &options.services {
        assert_eq!(service.config.gateway.port, 8443);
        assert_eq!(service.config.token.as_ref().unwrap().reveal(), TOKEN);
    }
    let flag = with(&text, "--tunnels 2", &[]).unwrap();
    assert!(flag.services.iter().all(|service| service.config.tunnels == 2), "a flag beats all");
    assert!(!format!("{options:?}").contains("secret"));
}

#[test]
fn each_mistake_is_told_with_its_line_and_column() {
    let table = [
        ("gateway = 'g'\ntunels = 2\n", "FILE:2:1: `tunels` isn't a key of the file"),
        ("gateway = 'g'\ntoken = 'secret'\n", "FILE:2:1: `token` is no key of the file; give"),
        ("gateway = 'g'\n  tunnels = 'two'\n", "FILE:2:13: tunnels \"two\" must be a number"),
        ("gateway = 'g'\ntunnels = 2.0\n", "FILE:2:11: tunnels \"2.0\" must be a number"),
        ("gateway = 'g'\ntunnels = 65\n", "FILE:2:11: tunnels \"65\" must be a number of tunnels"),
        ("gateway = 'g'\nany_host = 'yes'\n", "FILE:2:12: `any_host` takes true or false"),
        ("gateway = 'g'\nhost = [5]\n", "FILE:2:8: `host` takes a host name"),
        ("gateway = 'g'\nca = true\n", "FILE:2:6: `ca` takes a path"),
        ("gateway = 'g'\nhost = ' '\n", "FILE:2:8: `host` is empty"),
        ("gateway = 'g'\nhost = 'a:1'\n", "FILE:2:8: host \"a:1\" must be a host name"),
        ("# é\ngateway = 'ftp://g'\n", "FILE:2:11: the gateway \"ftp://g\""),
        ("log = 'loud'\ngateway = 'g'\n", "FILE:1:7: log \"loud\" must be a level"),
        ("gateway = 'g'\norigin = 'ftp://x'\n", "FILE:2:10: the origin \"ftp://x\""),
        ("gateway = 'g'\ntoken_file = '/nowhere/t'\n", "FILE:2:14: the token file /nowhere/t"),
        ("gateway = 'g'\nalpn = 'h2'\n", "FILE:2:8: alpn"),
        ("gateway = 'g'\nvia = 'door'\n", "FILE:2:7: via \"door\""),
        (
            "gateway = 'g'\nhost-header = 'a'\nhost_header = 'b'\n",
            "FILE:3:1: `host_header` is given twice",
        ),
        ("gateway = 'g'\ngateway = 'h'\n", "FILE:2:1: this isn't TOML: duplicate key"),
        ("gateway = g\n", "FILE:1:11: this isn't TOML"),
        ("gateway = 'g'\nservice = [1]\n", "FILE:2:12: `service` takes a table"),
        ("gateway = 'g'\n[[service]]\nhost = 'a'\n", "FILE:2:1: this service has no origin"),
        (
            "gateway = 'g'\n[[service]]\norigin = '80'\nlog = 'off'\n",
            "FILE:4:7: log holds for all services",
        ),
        (
            "gateway = 'g'\nhost = 'a'\n[[service]]\norigin = '80'\n",
            "FILE:2:8: host can't hold for each [[service]]",
        ),
        (
            "gateway = 'g'\n[[service]]\norigin = '80'\n[[service]]\norigin = '81'\ntunnels = 0\n",
            "FILE:6:11: tunnels \"0\"",
        ),
        (
            "gateway = 'g'\n[[service]]\norigin = '80'\n[[service]]\norigin = '81'\n",
            "FILE:4:1: another service has the same credential",
        ),
        (
            "gateway = 'g'\n[[service]]\norigin = '80'\nhost = 'a'\n[[service]]\norigin = '81'\n",
            "FILE:5:1: another service has the same credential",
        ),
        (
            "gateway = 'g'\n[[service]]\norigin = '80'\nhost = 'a'\npath = '/x'\n[[service]]\nhost = 'a'\norigin = '81'\n",
            "FILE:6:1: another service has the same credential",
        ),
    ];
    for (text, begins) in table {
        let sentence = with(text, "", &[]).unwrap_err();
        assert!(sentence.starts_with(begins), "{text:?}: {sentence:?} isn't {begins:?}");
        assert!(!sentence.contains('\n') && !sentence.contains("secret"), "{sentence}");
    }
    let both = format!("gateway = 'g'\npin = 'sha256:{}'\nca = 'x'\n", "a5".repeat(32));
    let sentence = with(&both, "", &[]).unwrap_err();
    assert!(sentence.starts_with("FILE:") && sentence.contains("exclude each other"), "{sentence}");
}

/// What isn't the file's fault isn't blamed on it.
/// Who wrote them mends all before the next try.
#[test]
fn all_mistakes_are_told_at_once() {
    let said = with("gateway = [1]\nbad = 2\n[[service]]\nworse = 3\n", "", &[]).unwrap_err();
    let places = ["1:11: `gateway` takes", "2:1: `bad` isn't", "4:1: `worse` isn't"];
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), places.len(), "{said}");
    for (line, place) in lines.iter().zip(places) {
        assert!(line.contains(place), "{said}");
    }
}

#[test]
fn mistakes_elsewhere_are_told_as_ever() {
    let good = "gateway = 'g'\norigin = '8080'\nlog = 'warn'\n";
    for (line, variables, sentence) in [
        ("--tunnels 0", &[][..], "--tunnels \"0\""),
        ("", &[("TUNNELS", "0")], "TUNNELS \"0\""),
        ("", &[("LOG", "loud")], "LOG \"loud\""),
        ("g ftp://x", &[], "the origin \"ftp://x\""),
    ] {
        let said = with(good, line, variables).unwrap_err();
        assert!(said.starts_with(sentence), "{said}");
    }
    assert!(with("log = 'warn'\n", "", &[]).unwrap_err().starts_with("no gateway"));
    let services = "gateway = 'g'\n[[service]]\norigin = '80'\n";
    for (line, variables, what) in [
        ("g 8080", &[][..], "ORIGIN"),
        ("--host a", &[], "--host"),
        ("--name a", &[], "--name"),
        ("", &[("ORIGIN", "80")], "ORIGIN"),
        ("", &[("PUBLIC_HOST", "a")], "PUBLIC_HOST"),
        ("", &[("NAME", "a")], "NAME"),
    ] {
        let said = with(services, line, variables).unwrap_err();
        assert!(said.starts_with(what) && said.contains("[[service]]"), "{said}");
    }
    let missing = options("--config /nowhere/client.toml", &[]).unwrap_err().to_string();
    assert!(
        missing.contains("/nowhere/client.toml") && missing.contains("No such file"),
        "{missing}"
    );
}

/// The example of `docs/configuration.md` works as it stands.
#[test]
fn the_documented_file_is_one() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let page = fs::read_to_string(page).unwrap();
    let begins = page.find("# client.toml").expect("the example");
    let example = page[begins..].split("```").next().unwrap();
    let tokens = [Scratch::new(TOKEN), Scratch::new(&Token::generate().reveal())];
    let example = example.replace("\"token\"", &format!("{:?}", tokens[0].0));
    let example = example.replace("\"git-token\"", &format!("{:?}", tokens[1].0));
    let options = with(&example, "", &[]).unwrap();
    let labels: Vec<_> = options.services.iter().filter_map(|s| s.label.as_deref()).collect();
    assert_eq!(labels, ["blog.example.com", "git.example.com"]);
    assert_eq!(options.url_file, Some("/run/2ptth/urls".into()));
    assert_ne!(options.services[0].config.token, options.services[1].config.token);
}
