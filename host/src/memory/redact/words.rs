//! Word lists, each one text: they are only asked about candidates, and so read better than they search.

/// Words that stand where a value will be, or say something about it.
pub(super) const STANDINS: &str = "
    password passwd pass passphrase pwd secret token apikey api_key api-key key test changeme change-me
    change_me example placeholder sample dummy demo foo bar baz foobar none null nil undefined true
    false yes no on off string str text bool boolean int integer number varchar bytes any object
    required optional redacted hidden masked removed omitted empty unset unknown todo tbd tba n/a na
    fixme missing invalid default include same-origin inherit secretstring generated user username email
    login value ... blank prompt ask stdin env file vault keychain keyring bitwarden 1password lastpass
    keepass basic bearer oauth oauth2 current-password new-password one-time-code self plain plaintext
    credentials input
";

/// Pieces of a value that say it is to be filled in.
pub(super) const FILL_IN: &str = "
    your yours example placeholder changeme change replace replaceme insert redacted todo dummy fixme
    here sample fake enter put paste fill goes supersecret
";

/// First names of expressions that read a value from elsewhere.
pub(super) const SOURCES: &str = "
    os process env config settings self this args opts options params ctx req request data user form
    secrets vars var local module import system environment cfg conf app props state event body
    credentials creds flags cli db account response resp res payload session context values input deno
    bun std crypto secret token auth client server z joi yup faker random uuid ops
";

/// Words of a sentence; one of them in a value of several words makes it prose.
pub(super) const FUNCTION_WORDS: &str = "
    a an and any are as at be been but by can cannot could do does don't enter for from had has have he
    her his how i if in into is it its it's least may must my need needs no not of on or our please
    required set shall she should so than that the their them then there they this to too use used was
    we were what when where which who will with would you your characters chars minimum maximum reset
    forgot change new old confirm repeat again invalid incorrect wrong per only all between wurde ist
    der die das und nicht le la les est pas que el los para con
";

/// Single words that follow "password is" or "password:" without being one.
pub(super) const STATES: &str = "
    weak strong wrong correct right safe secure insecure unsafe short long too fine good bad okay old
    new same different unique empty blank null none mandatory missing valid known lost gone set unset
    sent kept shown seen there here below above elsewhere stale simple complex easy hard plaintext
    cleartext base admin unclear broken leaked rotten ours mine yours theirs not case length policy
    field manager minimum maximum hash salt prompt reset change dropdown textbox checkbox label column
    string plain forbidden disallowed allowed needed enough later soon tomorrow yesterday today again
    always never sometimes often rarely ready done pending active inactive locked unlocked public shared
    everything nothing something anything everyone someone anyone nobody important sensitive private
    confidential secret obvious trivial common random generated incorrect identical equal enabled
    disabled true false failure success failed rotation recovery strength expiry expiration history
    entropy complexity autofill authentication authorization login logout signup signin account settings
    security please thanks sorry hello first second third better worse wrongly upper lowercase uppercase
    letters digits symbols numbers characters words bearer basic
";

/// Whether a list has a word.
pub(super) fn has(list: &str, word: &str) -> bool {
    list.split_ascii_whitespace().any(|listed| listed == word)
}
