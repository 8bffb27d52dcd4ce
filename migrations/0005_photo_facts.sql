-- What a photo shows at a glance, and what its camera wrote down, if whoever uploaded it chose to keep that.

alter table media add column dominant_color text;
alter table media add column camera_facts boolean not null default false;
alter table media add column camera jsonb;
