-- What all migrations together make of an empty database; for reading, never run. A test holds it against them.
-- Left out: the partitions. Each sharded table has eight, <table>_0 to <table>_7, by hash of `shard`.

CREATE FUNCTION public.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
  raise exception '% is append-only', tg_table_name;
end
$$;

CREATE TABLE public.accounts (
    shard smallint NOT NULL,
    id bigint NOT NULL,
    username text NOT NULL,
    display_name text DEFAULT ''::text NOT NULL,
    bio text DEFAULT ''::text NOT NULL,
    password_hash text NOT NULL,
    post_count integer DEFAULT 0 NOT NULL,
    follower_count integer DEFAULT 0 NOT NULL,
    following_count integer DEFAULT 0 NOT NULL,
    is_private boolean DEFAULT false NOT NULL,
    suspended_at timestamp with time zone,
    delivery smallint DEFAULT 0 NOT NULL,
    email text,
    pending_email text,
    avatar_id bigint,
    avatar jsonb,
    website text DEFAULT ''::text NOT NULL,
    left_at timestamp with time zone,
    CONSTRAINT accounts_check CHECK ((shard = ((id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.activity (
    shard smallint NOT NULL,
    account_id bigint NOT NULL,
    kind text NOT NULL,
    subject_id bigint NOT NULL,
    actor_id bigint NOT NULL,
    id bigint DEFAULT 0 NOT NULL,
    pushed_id bigint DEFAULT 0 NOT NULL,
    pushed_at timestamp with time zone,
    push_waits boolean DEFAULT false NOT NULL,
    CONSTRAINT activity_check CHECK ((shard = ((account_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.admins (
    account_id bigint NOT NULL
);

CREATE TABLE public.audit_log (
    id bigint NOT NULL,
    admin_id bigint,
    operator text,
    action text NOT NULL,
    subject_kind text NOT NULL,
    subject_id bigint NOT NULL,
    account_id bigint NOT NULL,
    case_id bigint,
    note text NOT NULL,
    CONSTRAINT audit_log_check CHECK (((admin_id IS NULL) <> (operator IS NULL)))
);

CREATE TABLE public.blocked_by (
    shard smallint NOT NULL,
    blocked_id bigint NOT NULL,
    blocker_id bigint NOT NULL,
    CONSTRAINT blocked_by_check CHECK ((shard = ((blocked_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.blocks (
    shard smallint NOT NULL,
    blocker_id bigint NOT NULL,
    blocked_id bigint NOT NULL,
    id bigint NOT NULL,
    CONSTRAINT blocks_check CHECK ((shard = ((blocker_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.commented (
    shard smallint NOT NULL,
    account_id bigint NOT NULL,
    comment_id bigint NOT NULL,
    CONSTRAINT commented_check CHECK ((shard = ((account_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.comments (
    shard smallint NOT NULL,
    id bigint NOT NULL,
    post_id bigint NOT NULL,
    parent_id bigint,
    author_id bigint NOT NULL,
    text text NOT NULL,
    mentions jsonb DEFAULT '[]'::jsonb NOT NULL,
    CONSTRAINT comments_check CHECK ((shard = ((id >> 10) & (8191)::bigint))),
    CONSTRAINT comments_check1 CHECK ((shard = ((post_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.counters (
    shard smallint NOT NULL,
    subject_id bigint NOT NULL,
    slot smallint NOT NULL,
    likes integer DEFAULT 0 NOT NULL,
    comments integer DEFAULT 0 NOT NULL,
    CONSTRAINT counters_check CHECK ((shard = ((subject_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.devices (
    shard smallint NOT NULL,
    account_id bigint NOT NULL,
    name text NOT NULL,
    id bigint NOT NULL,
    session_id bigint NOT NULL,
    platform text NOT NULL,
    address text NOT NULL,
    p256dh bytea,
    auth bytea,
    endpoint_arn text,
    CONSTRAINT devices_check CHECK ((shard = ((account_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.emails (
    email text NOT NULL,
    account_id bigint NOT NULL,
    confirmed_at timestamp with time zone
);

CREATE TABLE public.explore_rankings (
    id bigint NOT NULL,
    made_at timestamp with time zone DEFAULT now() NOT NULL,
    post_ids bigint[] NOT NULL
);

ALTER TABLE public.explore_rankings ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.explore_rankings_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.exports (
    shard smallint NOT NULL,
    id bigint NOT NULL,
    account_id bigint NOT NULL,
    object_key text NOT NULL,
    status text NOT NULL,
    photos integer DEFAULT 0 NOT NULL,
    photos_done integer DEFAULT 0 NOT NULL,
    size bigint,
    ready_at timestamp with time zone,
    expires_at timestamp with time zone NOT NULL,
    CONSTRAINT exports_check CHECK ((shard = ((id >> 10) & (8191)::bigint))),
    CONSTRAINT exports_check1 CHECK ((shard = ((account_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.followed_tags (
    shard smallint NOT NULL,
    account_id bigint NOT NULL,
    tag text NOT NULL COLLATE pg_catalog."C",
    id bigint NOT NULL,
    CONSTRAINT followed_tags_check CHECK ((shard = ((account_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.followers (
    shard smallint NOT NULL,
    followee_id bigint NOT NULL,
    follower_id bigint NOT NULL,
    id bigint NOT NULL,
    notify boolean NOT NULL,
    CONSTRAINT followers_check CHECK ((shard = ((followee_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.following (
    shard smallint NOT NULL,
    follower_id bigint NOT NULL,
    followee_id bigint NOT NULL,
    id bigint NOT NULL,
    notify boolean NOT NULL,
    CONSTRAINT following_check CHECK ((shard = ((follower_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.idempotency_keys (
    shard smallint NOT NULL,
    account_id bigint NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    resource_id bigint NOT NULL,
    locked_until timestamp with time zone NOT NULL,
    status smallint,
    headers jsonb,
    body bytea,
    created_at timestamp with time zone DEFAULT now() NOT NULL
)
PARTITION BY HASH (shard);

CREATE TABLE public.inboxes (
    shard smallint NOT NULL,
    account_id bigint NOT NULL,
    read_id bigint DEFAULT 0 NOT NULL,
    preferences jsonb DEFAULT '{}'::jsonb NOT NULL,
    mailed_id bigint DEFAULT 0 NOT NULL,
    mailed_at timestamp with time zone,
    mail_waits boolean DEFAULT false NOT NULL,
    CONSTRAINT inboxes_check CHECK ((shard = ((account_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.likers (
    shard smallint NOT NULL,
    post_id bigint NOT NULL,
    account_id bigint NOT NULL,
    id bigint NOT NULL,
    CONSTRAINT likers_check CHECK ((shard = ((post_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.likes (
    shard smallint NOT NULL,
    account_id bigint NOT NULL,
    post_id bigint NOT NULL,
    CONSTRAINT likes_check CHECK ((shard = ((account_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.mail_tokens (
    shard smallint NOT NULL,
    account_id bigint NOT NULL,
    id bigint NOT NULL,
    purpose text NOT NULL,
    email text NOT NULL,
    token_hash bytea NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    used_at timestamp with time zone,
    CONSTRAINT mail_tokens_check CHECK ((shard = ((account_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.media (
    shard smallint NOT NULL,
    id bigint NOT NULL,
    account_id bigint NOT NULL,
    status text NOT NULL,
    failure text,
    object_key text NOT NULL,
    content_type text,
    size bigint,
    sha256 bytea,
    width integer,
    height integer,
    blurhash text,
    renditions jsonb DEFAULT '[]'::jsonb NOT NULL,
    post_id bigint,
    "position" smallint,
    alt_text text DEFAULT ''::text NOT NULL,
    dominant_color text,
    camera_facts boolean DEFAULT false NOT NULL,
    camera jsonb,
    original_deleted_at timestamp with time zone,
    uploaded_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT media_check CHECK ((shard = ((id >> 10) & (8191)::bigint))),
    CONSTRAINT media_check1 CHECK ((shard = ((account_id >> 10) & (8191)::bigint))),
    CONSTRAINT media_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'processing'::text, 'ready'::text, 'failed'::text])))
)
PARTITION BY HASH (shard);

CREATE TABLE public.migrations (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.mutes (
    shard smallint NOT NULL,
    muter_id bigint NOT NULL,
    muted_id bigint NOT NULL,
    id bigint NOT NULL,
    CONSTRAINT mutes_check CHECK ((shard = ((muter_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.outbox (
    shard smallint NOT NULL,
    id bigint NOT NULL,
    kind text NOT NULL,
    payload jsonb NOT NULL,
    "position" bigint DEFAULT 0 NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    due_at timestamp with time zone NOT NULL,
    leased_until timestamp with time zone,
    error text,
    done_at timestamp with time zone,
    dead_at timestamp with time zone,
    started_at timestamp with time zone,
    CONSTRAINT outbox_check CHECK ((shard = ((id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.posts (
    shard smallint NOT NULL,
    id bigint NOT NULL,
    author_id bigint NOT NULL,
    caption text NOT NULL,
    published_at timestamp with time zone,
    edited_at timestamp with time zone,
    tags text[] DEFAULT '{}'::text[] NOT NULL,
    mentions jsonb DEFAULT '[]'::jsonb NOT NULL,
    CONSTRAINT posts_check CHECK ((shard = ((id >> 10) & (8191)::bigint))),
    CONSTRAINT posts_check1 CHECK ((shard = ((author_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.report_cases (
    shard smallint NOT NULL,
    id bigint NOT NULL,
    subject_kind text NOT NULL,
    subject_id bigint NOT NULL,
    account_id bigint NOT NULL,
    report_count integer DEFAULT 0 NOT NULL,
    reasons text[] DEFAULT '{}'::text[] NOT NULL,
    resolution text,
    resolved_by bigint,
    resolved_at timestamp with time zone,
    CONSTRAINT report_cases_check CHECK ((shard = ((id >> 10) & (8191)::bigint))),
    CONSTRAINT report_cases_check1 CHECK ((shard = ((subject_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.reports (
    shard smallint NOT NULL,
    case_id bigint NOT NULL,
    reporter_id bigint NOT NULL,
    id bigint NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    CONSTRAINT reports_check CHECK ((shard = ((case_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.requesters (
    shard smallint NOT NULL,
    followee_id bigint NOT NULL,
    requester_id bigint NOT NULL,
    id bigint NOT NULL,
    notify boolean NOT NULL,
    CONSTRAINT requesters_check CHECK ((shard = ((followee_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.requesting (
    shard smallint NOT NULL,
    requester_id bigint NOT NULL,
    followee_id bigint NOT NULL,
    id bigint NOT NULL,
    notify boolean NOT NULL,
    CONSTRAINT requesting_check CHECK ((shard = ((requester_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.savers (
    shard smallint NOT NULL,
    post_id bigint NOT NULL,
    account_id bigint NOT NULL,
    CONSTRAINT savers_check CHECK ((shard = ((post_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.saves (
    shard smallint NOT NULL,
    account_id bigint NOT NULL,
    post_id bigint NOT NULL,
    id bigint NOT NULL,
    CONSTRAINT saves_check CHECK ((shard = ((account_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.scans (
    name text NOT NULL,
    "position" text NOT NULL
);

CREATE TABLE public.scheduled_posts (
    shard smallint NOT NULL,
    id bigint NOT NULL,
    author_id bigint NOT NULL,
    caption text NOT NULL,
    place bigint NOT NULL,
    entry_id bigint NOT NULL,
    post_id bigint,
    CONSTRAINT scheduled_posts_check CHECK ((shard = ((id >> 10) & (8191)::bigint))),
    CONSTRAINT scheduled_posts_check1 CHECK ((shard = ((author_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.search_terms (
    shard smallint NOT NULL,
    account_id bigint NOT NULL,
    term text NOT NULL COLLATE pg_catalog."C",
    level smallint DEFAULT 0 NOT NULL,
    CONSTRAINT search_terms_check CHECK ((shard = ((account_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.search_words (
    shard smallint NOT NULL,
    word text NOT NULL COLLATE pg_catalog."C",
    level smallint NOT NULL,
    slips integer[] NOT NULL
)
PARTITION BY HASH (shard);

CREATE TABLE public.sessions (
    shard smallint NOT NULL,
    id bigint NOT NULL,
    account_id bigint NOT NULL,
    token_hash bytea NOT NULL,
    device_name text NOT NULL,
    used_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT sessions_check CHECK ((shard = ((account_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.tagged_posts (
    shard smallint NOT NULL,
    tag text NOT NULL COLLATE pg_catalog."C",
    post_id bigint NOT NULL,
    author_id bigint NOT NULL
)
PARTITION BY HASH (shard);

CREATE TABLE public.tags (
    shard smallint NOT NULL,
    tag text NOT NULL COLLATE pg_catalog."C",
    level smallint NOT NULL
)
PARTITION BY HASH (shard);

CREATE TABLE public.undone (
    shard smallint NOT NULL,
    account_id bigint NOT NULL,
    kind text NOT NULL,
    subject_id bigint NOT NULL,
    actor_id bigint NOT NULL,
    id bigint NOT NULL,
    CONSTRAINT undone_check CHECK ((shard = ((account_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.uploads (
    shard smallint NOT NULL,
    id bigint NOT NULL,
    account_id bigint NOT NULL,
    object_key text NOT NULL,
    s3_upload_id text,
    size bigint NOT NULL,
    sha256 bytea NOT NULL,
    part_size integer NOT NULL,
    camera_facts boolean DEFAULT false NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    CONSTRAINT uploads_check CHECK ((shard = ((id >> 10) & (8191)::bigint))),
    CONSTRAINT uploads_check1 CHECK ((shard = ((account_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

CREATE TABLE public.usernames (
    username text NOT NULL,
    account_id bigint NOT NULL,
    held_until timestamp with time zone
);

CREATE TABLE public.warnings (
    shard smallint NOT NULL,
    account_id bigint NOT NULL,
    id bigint NOT NULL,
    subject_kind text NOT NULL,
    subject_id bigint NOT NULL,
    message text NOT NULL,
    CONSTRAINT warnings_check CHECK ((shard = ((account_id >> 10) & (8191)::bigint)))
)
PARTITION BY HASH (shard);

ALTER TABLE ONLY public.accounts
    ADD CONSTRAINT accounts_pkey PRIMARY KEY (shard, id);

ALTER TABLE ONLY public.activity
    ADD CONSTRAINT activity_pkey PRIMARY KEY (shard, account_id, kind, subject_id, actor_id);

ALTER TABLE ONLY public.admins
    ADD CONSTRAINT admins_pkey PRIMARY KEY (account_id);

ALTER TABLE ONLY public.audit_log
    ADD CONSTRAINT audit_log_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.blocked_by
    ADD CONSTRAINT blocked_by_pkey PRIMARY KEY (shard, blocked_id, blocker_id);

ALTER TABLE ONLY public.blocks
    ADD CONSTRAINT blocks_pkey PRIMARY KEY (shard, blocker_id, blocked_id);

ALTER TABLE ONLY public.commented
    ADD CONSTRAINT commented_pkey PRIMARY KEY (shard, account_id, comment_id);

ALTER TABLE ONLY public.comments
    ADD CONSTRAINT comments_pkey PRIMARY KEY (shard, id);

ALTER TABLE ONLY public.counters
    ADD CONSTRAINT counters_pkey PRIMARY KEY (shard, subject_id, slot);

ALTER TABLE ONLY public.devices
    ADD CONSTRAINT devices_pkey PRIMARY KEY (shard, account_id, name);

ALTER TABLE ONLY public.emails
    ADD CONSTRAINT emails_pkey PRIMARY KEY (email);

ALTER TABLE ONLY public.explore_rankings
    ADD CONSTRAINT explore_rankings_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.exports
    ADD CONSTRAINT exports_pkey PRIMARY KEY (shard, id);

ALTER TABLE ONLY public.followed_tags
    ADD CONSTRAINT followed_tags_pkey PRIMARY KEY (shard, account_id, tag);

ALTER TABLE ONLY public.followers
    ADD CONSTRAINT followers_pkey PRIMARY KEY (shard, followee_id, follower_id);

ALTER TABLE ONLY public.following
    ADD CONSTRAINT following_pkey PRIMARY KEY (shard, follower_id, followee_id);

ALTER TABLE ONLY public.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (shard, account_id, key);

ALTER TABLE ONLY public.inboxes
    ADD CONSTRAINT inboxes_pkey PRIMARY KEY (shard, account_id);

ALTER TABLE ONLY public.likers
    ADD CONSTRAINT likers_pkey PRIMARY KEY (shard, post_id, account_id);

ALTER TABLE ONLY public.likes
    ADD CONSTRAINT likes_pkey PRIMARY KEY (shard, account_id, post_id);

ALTER TABLE ONLY public.mail_tokens
    ADD CONSTRAINT mail_tokens_pkey PRIMARY KEY (shard, account_id, id);

ALTER TABLE ONLY public.media
    ADD CONSTRAINT media_pkey PRIMARY KEY (shard, id);

ALTER TABLE ONLY public.migrations
    ADD CONSTRAINT migrations_pkey PRIMARY KEY (version);

ALTER TABLE ONLY public.mutes
    ADD CONSTRAINT mutes_pkey PRIMARY KEY (shard, muter_id, muted_id);

ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (shard, id);

ALTER TABLE ONLY public.posts
    ADD CONSTRAINT posts_pkey PRIMARY KEY (shard, id);

ALTER TABLE ONLY public.report_cases
    ADD CONSTRAINT report_cases_pkey PRIMARY KEY (shard, id);

ALTER TABLE ONLY public.reports
    ADD CONSTRAINT reports_pkey PRIMARY KEY (shard, case_id, reporter_id);

ALTER TABLE ONLY public.requesters
    ADD CONSTRAINT requesters_pkey PRIMARY KEY (shard, followee_id, requester_id);

ALTER TABLE ONLY public.requesting
    ADD CONSTRAINT requesting_pkey PRIMARY KEY (shard, requester_id, followee_id);

ALTER TABLE ONLY public.savers
    ADD CONSTRAINT savers_pkey PRIMARY KEY (shard, post_id, account_id);

ALTER TABLE ONLY public.saves
    ADD CONSTRAINT saves_pkey PRIMARY KEY (shard, account_id, post_id);

ALTER TABLE ONLY public.scans
    ADD CONSTRAINT scans_pkey PRIMARY KEY (name);

ALTER TABLE ONLY public.scheduled_posts
    ADD CONSTRAINT scheduled_posts_pkey PRIMARY KEY (shard, id);

ALTER TABLE ONLY public.search_terms
    ADD CONSTRAINT search_terms_pkey PRIMARY KEY (shard, account_id, term);

ALTER TABLE ONLY public.search_words
    ADD CONSTRAINT search_words_pkey PRIMARY KEY (shard, word);

ALTER TABLE ONLY public.sessions
    ADD CONSTRAINT sessions_pkey PRIMARY KEY (shard, id);

ALTER TABLE ONLY public.tagged_posts
    ADD CONSTRAINT tagged_posts_pkey PRIMARY KEY (shard, tag, post_id);

ALTER TABLE ONLY public.tags
    ADD CONSTRAINT tags_pkey PRIMARY KEY (shard, tag);

ALTER TABLE ONLY public.undone
    ADD CONSTRAINT undone_pkey PRIMARY KEY (shard, account_id, kind, subject_id, actor_id);

ALTER TABLE ONLY public.uploads
    ADD CONSTRAINT uploads_pkey PRIMARY KEY (shard, id);

ALTER TABLE ONLY public.usernames
    ADD CONSTRAINT usernames_pkey PRIMARY KEY (username);

ALTER TABLE ONLY public.warnings
    ADD CONSTRAINT warnings_pkey PRIMARY KEY (shard, account_id, id);

CREATE INDEX accounts_celebrities ON ONLY public.accounts USING btree (id) WHERE (delivery > 0);

CREATE INDEX activity_caused ON ONLY public.activity USING btree (actor_id, subject_id);

CREATE INDEX activity_id ON ONLY public.activity USING btree (shard, account_id, id);

CREATE INDEX audit_log_account ON public.audit_log USING btree (account_id, id);

CREATE INDEX blocks_id ON ONLY public.blocks USING btree (shard, blocker_id, id);

CREATE INDEX comments_post ON ONLY public.comments USING btree (shard, post_id, parent_id, id);

CREATE INDEX devices_address ON ONLY public.devices USING hash (address);

CREATE INDEX devices_session ON ONLY public.devices USING btree (shard, session_id);

CREATE INDEX emails_account ON public.emails USING btree (account_id);

CREATE INDEX exports_account ON ONLY public.exports USING btree (shard, account_id);

CREATE INDEX exports_expires ON ONLY public.exports USING btree (expires_at);

CREATE INDEX followers_id ON ONLY public.followers USING btree (shard, followee_id, id);

CREATE INDEX following_id ON ONLY public.following USING btree (shard, follower_id, id);

CREATE INDEX idempotency_keys_age ON ONLY public.idempotency_keys USING btree (created_at);

CREATE INDEX likers_id ON ONLY public.likers USING btree (shard, post_id, id);

CREATE INDEX likers_newest ON ONLY public.likers USING btree (id) INCLUDE (post_id);

CREATE INDEX mail_tokens_expiry ON ONLY public.mail_tokens USING btree (expires_at);

CREATE INDEX media_post ON ONLY public.media USING btree (shard, post_id, "position") WHERE (post_id IS NOT NULL);

CREATE INDEX media_processing ON ONLY public.media USING btree (id) WHERE (status = 'processing'::text);

CREATE INDEX media_sha256 ON ONLY public.media USING btree (shard, account_id, sha256) WHERE (sha256 IS NOT NULL);

CREATE INDEX media_stored ON ONLY public.media USING btree (substr(sha256((object_key)::bytea), 1, 16));

CREATE INDEX media_unposted ON ONLY public.media USING btree (id) WHERE ((post_id IS NULL) AND (status <> 'pending'::text));

CREATE INDEX mutes_id ON ONLY public.mutes USING btree (shard, muter_id, id);

CREATE INDEX mutes_muted ON ONLY public.mutes USING btree (muted_id);

CREATE INDEX outbox_done ON ONLY public.outbox USING btree (done_at) WHERE (done_at IS NOT NULL);

CREATE INDEX outbox_due ON ONLY public.outbox USING btree (due_at) WHERE (done_at IS NULL);

CREATE INDEX posts_author ON ONLY public.posts USING btree (shard, author_id, id);

CREATE INDEX posts_published ON ONLY public.posts USING btree (shard, author_id, id) WHERE (published_at IS NOT NULL);

CREATE INDEX report_cases_open ON ONLY public.report_cases USING btree (id) WHERE (resolved_at IS NULL);

CREATE UNIQUE INDEX report_cases_subject ON ONLY public.report_cases USING btree (shard, subject_kind, subject_id) WHERE (resolved_at IS NULL);

CREATE INDEX reports_id ON ONLY public.reports USING btree (shard, case_id, id);

CREATE INDEX reports_reporter ON ONLY public.reports USING btree (reporter_id, id);

CREATE INDEX requesters_id ON ONLY public.requesters USING btree (shard, followee_id, id);

CREATE INDEX saves_id ON ONLY public.saves USING btree (shard, account_id, id);

CREATE INDEX scheduled_posts_author ON ONLY public.scheduled_posts USING btree (shard, author_id, post_id, place);

CREATE INDEX scheduled_posts_post ON ONLY public.scheduled_posts USING btree (shard, post_id) WHERE (post_id IS NOT NULL);

CREATE INDEX search_terms_prefix ON ONLY public.search_terms USING btree (level, term);

CREATE INDEX search_words_slips ON ONLY public.search_words USING gin (slips);

CREATE INDEX sessions_account ON ONLY public.sessions USING btree (shard, account_id);

CREATE INDEX tags_popular ON ONLY public.tags USING btree (((level / 8)), tag);

CREATE INDEX undone_actor ON ONLY public.undone USING btree (actor_id);

CREATE INDEX undone_id ON ONLY public.undone USING btree (id);

CREATE INDEX uploads_account ON ONLY public.uploads USING btree (shard, account_id);

CREATE INDEX uploads_expires ON ONLY public.uploads USING btree (expires_at);

CREATE INDEX uploads_stored ON ONLY public.uploads USING btree (object_key);

CREATE INDEX usernames_held ON public.usernames USING btree (account_id) WHERE (held_until IS NOT NULL);

CREATE TRIGGER audit_log_is_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON public.audit_log FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_change();

ALTER TABLE public.devices
    ADD CONSTRAINT devices_shard_session_id_fkey FOREIGN KEY (shard, session_id) REFERENCES public.sessions(shard, id) ON DELETE CASCADE;
