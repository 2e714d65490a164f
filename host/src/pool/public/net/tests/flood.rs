//! Offers by gossip, and a flood of them.

use tokio::sync::broadcast;

use super::*;

async fn published(net: &PublicNet, data: &[u8]) {
    let began = Instant::now();
    while let Err(error) = net.handle().publish(data.to_vec()).await {
        assert_eq!(error, NetError::Alone);
        assert!(began.elapsed() < Duration::from_secs(10), "nobody listens");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn heard(listener: &mut broadcast::Receiver<Heard>) -> Option<Heard> {
    timeout(Duration::from_secs(15), listener.recv()).await.ok()?.ok()
}

/// Until the two in the middle have agreed to pass messages on.
async fn settled() {
    sleep(Duration::from_millis(2_500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_of_a_kibibyte_reaches_a_requester_that_never_meets_the_provider() {
    let middle = start(server(), &[]).await;
    let (provider, requester) = (start(client(), &[&middle]).await, start(client(), &[&middle]).await);
    connected(&provider, &middle).await;
    connected(&requester, &middle).await;
    settled().await;
    let mut listener = requester.handle().subscribe();
    let offer: Vec<u8> = (0..1_024_u32).map(|n| n.to_le_bytes()[0]).collect();
    let began = Instant::now();
    published(&provider, &offer).await;
    let message = heard(&mut listener).await.expect("the offer arrives");
    println!("an offer of 1 KiB over two hops: {:?}", began.elapsed());
    assert_eq!((message.source, &*message.data), (provider.me(), offer.as_slice()));
    assert!(!sees(&requester, provider.me()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_floods_is_cut_off_and_others_are_still_heard() {
    let middle = start(server(), &[]).await;
    let flooder = start(client(), &[&middle]).await;
    let (provider, requester) = (start(client(), &[&middle]).await, start(client(), &[&middle]).await);
    for net in [&flooder, &provider, &requester] {
        connected(net, &middle).await;
    }
    settled().await;
    let mut listener = requester.handle().subscribe();
    let (began, mut sent) = (Instant::now(), 0_u32);
    while sees(&middle, flooder.me()) {
        if flooder.handle().publish([[0x7f; 900].as_slice(), &sent.to_be_bytes()].concat()).await.is_ok() {
            sent += 1;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{sent} published, and still not cut off");
        sleep(Duration::from_millis(2)).await;
    }
    published(&provider, b"an honest offer").await;
    let mut flood = 0;
    let honest = loop {
        let message = heard(&mut listener).await.expect("the honest offer arrives");
        if message.source == provider.me() {
            break message;
        }
        flood += 1;
    };
    println!("{sent} published in a flood, {flood} passed on");
    assert_eq!(&*honest.data, b"an honest offer");
    assert!(sent > gossip::STRIKES);
    assert!(flood <= gossip::PER_SOURCE.burst + 1, "{flood} of the flood were passed on");
    // It dials again and again, and stays out.
    sleep(Duration::from_secs(3)).await;
    assert!(!sees(&middle, flooder.me()));
}
